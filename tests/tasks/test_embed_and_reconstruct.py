"""Embeddings and reconstructions of programs with classes and of tables."""

import torch

import pyro_vae as pv


def test_embed_without_a_closed_form_is_that_of_the_mixture():
    """Mean and std over sampled classes are those of the mixture of posteriors, within four standard errors."""
    torch.manual_seed(0)
    net = {"net": lambda i, o, context=0: pv.nets.MLP(i, o, hidden=(8,), context=context)}
    program = pv.programs.SemiSupervised(
        classes=pv.priors.OneHotCategorical(3),
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (4,), context=3, **net),
        classifier=pv.posteriors.OneHotCategorical((4,), 3, **net),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3, **net),
    )
    program.posterior.net.body[0].weight.data.mul_(6)  # so that classes differ
    x, draws = 3 * torch.randn(5, 4), 4000
    found = pv.tasks.embed(program, x, num_samples=draws)
    with torch.no_grad():
        share = program.classify(x)
        q = program.posterior(x.expand(3, 5, 4), torch.eye(3).unsqueeze(1).expand(3, 5, 3))
        mean = torch.einsum("nk,knd->nd", share, q.mean)
        second = torch.einsum("nk,knd->nd", share, q.variance + q.mean.square())
        sd = (second - mean.square()).sqrt()
        spread = (torch.einsum("nk,knd->nd", share, q.mean.square()) - mean.square()).clamp(min=1e-12).sqrt()
    assert found.names == ("y[0]", "y[1]", "y[2]", "z[0]", "z[1]")
    torch.testing.assert_close(found.mean[:, :3], share, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std[:, :3], (share * (1 - share)).sqrt(), rtol=0, atol=1e-4)
    assert ((found.mean[:, 3:] - mean).abs() < 4 * spread / draws**0.5 + 1e-5).all()
    torch.testing.assert_close(found.std[:, 3:], sd, rtol=0.1, atol=0)


def test_reconstruction_of_labels_is_the_most_probable_one():
    """The rounded mean of the codes of the first and the last of three labels would be the one in the middle."""
    columns = [pv.data.tables.Categorical("colour", ("red", "green", "blue")), pv.data.tables.Real("size")]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Heterogeneous(1, (2,), columns=columns),
        posterior=pv.posteriors.MeanFieldNormal((2,), 1),
    )
    last = vae.likelihood.net.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, -9.0, 1.1, 0.5, 0.0]))
    found = pv.tasks.reconstruct(vae, torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5], [2.0, 0.5]]))
