"""Class numbers as learned vectors: one-hot vectors times a matrix, in every conditional part."""

from functools import partial

import torch

import pyro_vae as pv

CLASSES = 4
Y = torch.randint(0, CLASSES, (30,), generator=torch.Generator().manual_seed(0))


def net(num_labels=1):
    torch.manual_seed(0)
    return pv.nets.LabelEmbedding((5,), (2, 3), context=num_labels, num_classes=CLASSES, width=3)


def test_embedding_is_one_hot_times_matrix():
    """Also for several labels and particles, and with the gradient of a matrix."""
    found, x = net(2), torch.randn(7, 30, 5)
    labels = torch.stack([Y, Y.flip(0)], -1).float()
    vectors, inner = found.body.vectors, found.body.net
    one_hot = torch.nn.functional.one_hot(labels.long(), CLASSES).float()
    context = torch.cat([one_hot[:, k] @ vectors[k] for k in range(2)], -1)
    assert torch.allclose(found(x, labels), inner(x, context), atol=1e-6)
    grads = [torch.autograd.grad(f.square().sum(), vectors)[0] for f in (found(x, labels), inner(x, context))]
    assert grads[0].abs().max() > 0
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-5)


def test_other_numbers_have_the_zero_vector():
    found, x = net(), torch.randn(3, 5)
    wanted = found.body.net(x, torch.zeros(3, 3))
    assert torch.equal(found(x, torch.tensor([[-1.0], [4.0], [0.5]])), wanted)


def test_a_conditional_program_learns_its_labels(tmp_path):
    """Labels are one number per example; decoded data depend on them, and the run is loaded again."""
    torch.manual_seed(0)
    embedding = partial(pv.nets.LabelEmbedding, num_classes=CLASSES, net=partial(pv.nets.MLP, hidden=(16,)))
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (5,), net=embedding, context=1),
        posterior=pv.posteriors.MeanFieldNormal((5,), 2, net=embedding, context=1),
    )
    centres = torch.eye(CLASSES, 5) * 5
    data = (centres[Y] + 0.1 * torch.randn(30, 5), Y[:, None].float())
    adam = partial(torch.optim.Adam, lr=1e-2)
    pv.fit(vae, data, epochs=150, batch_size=30, optimizer=adam, run_dir=tmp_path, progress=False)
    sampled = vae.sample(CLASSES, torch.arange(CLASSES).float()[:, None], mean=True)
    assert (sampled - centres).abs().max() < 1
    assert torch.equal(pv.load(tmp_path).sample(4, data[1][:4]), vae.sample(4, data[1][:4]))
