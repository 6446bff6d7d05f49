"""Programs without latents, auxiliary sites, factors, reparameterizations: exact, or refused in one sentence."""

import math
import warnings

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.distributions.transforms import neural_autoregressive, planar
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal, AutoNormalMessenger
from pyro.infer.reparam import ConjugateReparam, LocScaleReparam

import pyro_vae as pv
from pyro_vae.estimators.over_batch import OverBatch

E = pv.estimators
ZERO = torch.zeros(()).double()
X = torch.tensor([0.8, -1.1, 2.0]).double()
#: Estimators that separate the gradient of the draws from that of the parameters, or look at the draws.
SPLITS = {E.DReG, E.StickingTheLanding, E.CUBO, E.PIWAE, E.GDReG}


def observed_only(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("x", dist.Normal(ZERO, 1.0), obs=x)


def nothing(x):
    """A model or guide without sample statements."""


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 2}])
@pytest.mark.parametrize("cls", shelf.classes())
def test_a_program_without_latents(cls, options):
    weight = torch.tensor(0.5).double().requires_grad_()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(weight, 1.0), obs=x)

    if issubclass(cls, OverBatch):
        with pytest.raises(ValueError, match="no example has a latent|particles_per_pass"):
            shelf.build(cls, **options).loss(model, nothing, X)
        return
    if options and not shelf.takes_passes(cls):
        with pytest.raises(ValueError, match="particles_per_pass"):
            shelf.build(cls, 4, **options)
        return
    loss = shelf.build(cls, 4, **options).differentiable_loss(model, nothing, X)
    exact = -dist.Normal(weight, 1.0).log_prob(X).sum()
    torch.testing.assert_close(loss, exact)
    torch.testing.assert_close(*(torch.autograd.grad(v, weight) for v in (loss, exact)))


@pytest.mark.parametrize(
    "options", [{"free_bits": 0.5}, {"free_bits": E.PerSite(0.5)}, {"capacity": E.Capacity(1.0, 9)}]
)
def test_penalties_need_a_latent(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: "):
        E.ELBO(**options).loss(observed_only, nothing, X)


@pytest.mark.parametrize("cls", shelf.classes())
def test_an_empty_model_is_refused(cls):
    with pytest.raises(ValueError, match="model: .*sample statement"):
        shelf.build(cls).loss(nothing, nothing, X)


@pytest.mark.parametrize("cls", shelf.classes())
def test_a_latent_that_the_guide_lacks(cls):
    toy = pv.testing.LinearGaussian()
    with pytest.raises(ValueError, match=r"\['z'\] occur only in the model"):
        shelf.build(cls).loss(toy.program.model, nothing, toy.draw(3))


@pytest.mark.parametrize("cls", shelf.classes())
@pytest.mark.parametrize("flow", [planar, neural_autoregressive])
def test_a_flow_without_an_inverse_and_another_latent(flow, cls):
    """Such a flow knows the density of the very tensor that it drew, and of no other."""
    transform = flow(2)

    def run(prior, x=None):
        with pyro.plate("data", 3, dim=-1):
            z = pyro.sample("z", prior)
            u = pyro.sample("u", dist.Normal(z.sum(-1), 1.0))
            if x is not None:
                pyro.sample("x", dist.Normal(u, 1.0), obs=x)

    base = dist.Normal(0.0, 1.0).expand([3, 2]).to_event(1)
    with pytest.raises(ValueError, match="'z'"):
        shelf.build(cls).loss(
            lambda x: run(base, x), lambda x: run(dist.TransformedDistribution(base, [transform])), X.float()
        )


@pytest.mark.parametrize("cls", shelf.classes())
def test_the_batch_as_a_keyword(cls):
    """The loss is that of a positional argument, or the argument is named."""
    if cls in shelf.discrete():
        part = pv.priors.Bernoulli(3), pv.posteriors.Bernoulli((4,), 3)
    else:
        part = pv.priors.Normal(3), pv.posteriors.MeanFieldNormal((4,), 3)
    vae = pv.VAE(prior=part[0], likelihood=pv.likelihoods.Normal(3, (4,)), posterior=part[1])
    x, losses = torch.randn(5, 4), []
    if cls is E.NVIL:  # a network for the baseline takes x
        with pytest.raises(ValueError, match="x: .*positional"):
            E.NVIL(baseline=pv.nets.MLP((4,), (1,))).loss(vae.model, vae.guide, x=x)
    for args, kwargs in (((x,), {}), ((), {"x": x})):
        torch.manual_seed(0)
        estimator = shelf.build(cls)
        for _ in range(2):
            torch.manual_seed(0)
            loss = estimator.loss(vae.model, vae.guide, *args, **kwargs)
        losses.append(loss)
    assert losses[0] == pytest.approx(losses[1])


def test_two_models_of_one_object():
    """A class and its base have a model of the same name, with other plates."""

    class Rows:
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0).expand([2]).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(0.5 * x, 1.0).to_event(1))

    class Parts(Rows):
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1), pyro.plate("part", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1), pyro.plate("part", 2, dim=-2):
                pyro.sample("z", dist.Normal(0.5 * x.T, 1.0))

    toy, x = Parts(), torch.randn(3, 2).double()
    for estimator in (E.IWAE(num_particles=3), E.ELBO(num_particles=2)):
        for model, guide in ((toy.model, toy.guide), (super(Parts, toy).model, super(Parts, toy).guide)) * 2:
            assert math.isfinite(estimator.loss(model, guide, x))


class Slots:
    """A model and a guide whose objects allow no weak references."""

    __slots__ = ()

    def model(self, x):
        toy.program.model(x)

    def guide(self, x):
        toy.program.guide(x)


toy = pv.testing.LinearGaussian(off=0.1)


def test_objects_without_weak_references():
    x, losses = toy.draw(3), []
    for owner in (Slots(), toy.program):
        for _ in range(2):
            torch.manual_seed(0)
            loss = E.IWAE().loss(owner.model, owner.guide, x)
        losses.append(loss)
    assert losses[0] == pytest.approx(losses[1])


class Auxiliary:
    """The latent of each example is twice an auxiliary draw, with the density that belongs to it."""

    def __init__(self):
        self.net = torch.nn.ParameterDict({"slope": torch.nn.Parameter(torch.tensor(0.2).double())})
        self.program = pv.programs.FunctionProgram(self.model, self.guide, net=self.net)
        self.plain = pv.programs.FunctionProgram(self.model, self.plain_guide, net=self.net)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            u = pyro.sample("u", dist.Normal(self.net["slope"] * x, 0.4), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(2 * u, log_density=-torch.tensor(2.0).double().log()))

    def plain_guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(2 * self.net["slope"] * x, 0.8))


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 2}])
@pytest.mark.parametrize("cls", [cls for cls in shelf.classes() if not shelf.for_bits(cls)])
def test_auxiliary_sites_of_each_example(cls, options):
    """The same bound and gradient as from the distribution that they make, or a refusal by name."""
    toy = Auxiliary()
    if cls in SPLITS or issubclass(cls, (OverBatch, E.DAIS)):
        with pytest.raises(ValueError, match="'[uz]'|particles_per_pass"):
            shelf.build(cls, **options).differentiable_loss(toy.program.model, toy.program.guide, X)
        return
    options = options | ({"analytic_kl": False} if issubclass(cls, E.ELBO) else {})
    found = []
    for program in (toy.program, toy.plain):
        for _ in range(2):
            torch.manual_seed(0)
            loss = shelf.build(cls, **options).differentiable_loss(program.model, program.guide, X)
        found.append((loss.detach(), *torch.autograd.grad(loss, list(toy.net.parameters()))))
    torch.testing.assert_close(*found)
    with pytest.raises(ValueError, match="free_bits: .*'u'"):
        shelf.build(cls, free_bits=0.5).loss(toy.program.model, toy.program.guide, X)


@pytest.mark.parametrize("auto", [AutoNormal, AutoMultivariateNormal])
@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE, E.ReinforceLOO])
def test_an_autoguide_of_the_latents_of_each_example(cls, auto):
    """The loss of each draw is that of Pyro's ELBO."""
    pyro.clear_param_store()
    model = Auxiliary().model
    guide = auto(model, init_scale=0.5)
    guide(X)
    many = 2 if cls is E.ReinforceLOO else 1
    if auto is AutoMultivariateNormal and cls is not E.ELBO:
        guide, many = poutine.block(guide, hide=[]), many
    options = {"analytic_kl": False} if cls is E.ELBO else {}
    for _ in range(2):
        torch.manual_seed(0)
        loss = cls(num_particles=many, **options).loss(model, guide, X)
    if many == 1:
        torch.manual_seed(0)
        assert loss == pytest.approx(pyro.infer.Trace_ELBO().loss(model, guide, X))
    assert math.isfinite(loss)
    pyro.clear_param_store()


def test_an_easy_guide_of_each_example():
    model = Auxiliary().model

    @easy_guide(model)
    def guide(self, x):
        with self.plate("data", len(x), dim=-1):
            self.group(match="z").sample("z_aux", dist.Normal(0.4 * x.unsqueeze(-1), 0.8).to_event(1))

    guide(X)
    estimator = E.ELBO(num_particles=1)
    for _ in range(2):
        torch.manual_seed(0)
        ours = estimator.loss(model, guide, X)
    torch.manual_seed(0)
    assert ours == pytest.approx(pyro.infer.Trace_ELBO().loss(model, guide, X))


@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE, E.Renyi, E.DReG])
def test_factors_in_model_and_guide(cls):
    """A factor of the model adds to log p, one of the guide to log q."""
    plain = Auxiliary()
    net = plain.net

    def model(x):
        plain.model(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.factor("f", 0.3 * x)
        pyro.factor("g", torch.tensor(0.7).double())

    def guide(x):
        plain.plain_guide(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.factor("h", 0.1 * x, has_rsample=True)

    program = pv.programs.FunctionProgram(model, guide, net=net)
    losses = []
    for functions in (program, plain.plain):
        for _ in range(2):
            torch.manual_seed(0)
            if cls is E.DReG and functions is program:
                with pytest.raises(ValueError, match="'h'"):
                    cls().loss(functions.model, functions.guide, X)
                return
            loss = cls(num_particles=3).loss(functions.model, functions.guide, X)
        losses.append(loss)
    assert losses[1] - losses[0] == pytest.approx(0.7 + 0.2 * float(X.sum()))


def test_a_conjugate_reparameterization():
    """A draw inside the reparameterization has no density of its own, and leaves its site to the model's sum."""
    counts = torch.tensor([3.0, 0.0, 7.0]).double()

    def model(counts):
        with pyro.plate("data", len(counts), dim=-1):
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0).double(), 1.0))
            pyro.sample("x", dist.Poisson(rate), obs=counts)

    def conjugate(counts):
        guide = ConjugateReparam(lambda counts: dist.Gamma(counts + 1, torch.ones_like(counts)))
        return poutine.reparam(model, config={"rate": guide})(counts)

    evidence = dist.GammaPoisson(torch.tensor(2.0).double(), 1.0).log_prob(counts)
    for estimator in (E.ELBO(), E.ELBO(num_particles=3), E.IWAE()):
        torch.testing.assert_close(estimator.per_datum(conjugate, nothing, counts), evidence)


def test_named_values_and_other_reparameterizations():
    """`pyro.deterministic` names a value; a decentred latent is another latent."""

    def model(x):
        with pyro.plate("weights", 2, dim=-1):
            pyro.deterministic("named", torch.ones(2), event_dim=0)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_ones(()), 2.0))
            pyro.deterministic("twice", 2 * z, event_dim=0)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.deterministic("in the guide", x, event_dim=0)
            pyro.sample("z", dist.Normal(x, 1.0))

    def decentred_guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z_decentered", dist.Normal((x - 1) / 2, 0.5))

    losses = []
    for m, g in ((model, guide), (poutine.reparam(model, config={"z": LocScaleReparam(0.0)}), decentred_guide)):
        terms = E.IWAE().terms(m, g, X)
        assert [site.name for site in terms.observed] == ["x"]
        torch.manual_seed(0)
        losses.append(E.IWAE().loss(m, g, X))
    assert losses[0] == pytest.approx(losses[1])


def test_a_guide_that_observes_a_site_is_refused():
    plain = Auxiliary()
    guide = poutine.condition(plain.plain_guide, data={"z": X})
    with pytest.raises(ValueError, match="guide: .*'z' is observed"):
        E.ELBO().loss(plain.model, guide, X)


@pytest.mark.parametrize("cls", shelf.classes())
def test_a_site_marked_for_sequential_enumeration_is_a_draw(cls):
    def bits(x, infer=None):
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("b", dist.Bernoulli(torch.tensor(0.3).double()), infer=infer)

    def model(x):
        b = bits(x)
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def whole(x):
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.3).double()))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        return bits(x, {"enumerate": "sequential"})

    if cls in shelf.discrete():
        assert math.isfinite(shelf.build(cls).loss(whole, guide, X))
    else:
        with pytest.raises(ValueError, match="'b'"):
            shelf.build(cls).loss(whole, guide, X)


class Shared(torch.nn.Module):
    """A latent that examples share, on which the prior and the guide of each example depend."""

    def __init__(self):
        super().__init__()
        self.g, self.h, self.a = (torch.nn.Parameter(torch.tensor(v).double()) for v in (0.3, 0.7, 0.4))

    def model(self, x):
        w = pyro.sample("w", dist.Normal(ZERO, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.g + self.h * w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        w = pyro.sample("w", dist.Normal(self.a, 1e-3))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.a * x + 0.2 * w, 0.6))


def test_gdreg_reads_shared_latents_from_the_guide():
    """A model that ran again would draw another shared latent, and compare draws with another prior."""
    program, gradients = Shared(), {}
    for cls in (E.IWAE, E.GDReG):
        torch.manual_seed(0)
        found = []
        for _ in range(400):
            loss = cls(num_particles=4).differentiable_loss(program.model, program.guide, X)
            found.append(torch.stack(torch.autograd.grad(loss, list(program.parameters()))))
        gradients[cls] = torch.stack(found)
    gap = gradients[E.IWAE].mean(0) - gradients[E.GDReG].mean(0)
    error = (sum(g.var(0) for g in gradients.values()) / 400).sqrt()
    # 4 standard errors
    assert (gap.abs() < 4 * error).all()


@pytest.mark.parametrize("cls", [E.DReG, E.GDReG])
def test_a_point_estimate_has_no_score_to_replace(cls):
    """The gradient would be 1/K of that of the bound."""
    weight = torch.tensor(0.4).double().requires_grad_()

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(weight * x))

    model = Auxiliary().model
    with pytest.raises(ValueError, match="guide: .*'z'.*Delta"):
        cls(num_particles=4).differentiable_loss(model, guide, X)
    losses = [kind(num_particles=1).differentiable_loss(model, guide, X) for kind in (cls, E.IWAE)]
    torch.testing.assert_close(*(torch.autograd.grad(loss, weight) for loss in losses))


@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE, E.GDReG])
def test_a_mask_that_is_false(cls):
    """Nothing counts: the closed form of a distribution that is masked as a whole is a number."""
    plain = Auxiliary()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).mask(False))
            pyro.sample("x", dist.Normal(z, 1.0).mask(False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x, 1.0).mask(False))

    for functions in ((model, guide), [poutine.mask(f, mask=False) for f in (plain.model, plain.plain_guide)]):
        if cls is E.GDReG and functions[0] is model:
            continue  # which takes location and scale of the prior
        loss = cls().differentiable_loss(*functions, X)
        assert loss.detach() == 0.0
    # an example that does not count has no free bits either
    assert E.ELBO(free_bits=0.5).loss(*functions, X) == 0.0


def test_factors_of_the_guide_say_whether_they_are_reparameterized():
    plain = Auxiliary()

    def guide(x):
        plain.plain_guide(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.factor("h", 0.1 * x)

    with pytest.raises(ValueError, match="guide: factor 'h'.*has_rsample"):
        E.ELBO().loss(plain.model, guide, X)


@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE])
def test_dimensions_on_the_right_of_a_plate_belong_to_its_entries(cls):
    """As in Pyro: rows in a plate at dimension -2, and columns in none."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).expand([len(x), 2]), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), 0.7))

    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(2):
        torch.manual_seed(0)
        ours = (E.ELBO(analytic_kl=False) if cls is E.ELBO else cls(num_particles=1)).loss(model, guide, x)
    torch.manual_seed(0)
    assert ours == pytest.approx(pyro.infer.Trace_ELBO().loss(model, guide, x))


def test_the_guide_of_a_shared_latent_follows_the_bounds_of_the_guide():
    """Under PIWAE the model has one bound, and the guide of every latent has those of the groups."""
    program, found = Shared(), []
    for cls in (E.PIWAE, E.MIWAE):
        for _ in range(2):
            torch.manual_seed(0)
            loss = cls(2, 3).differentiable_loss(program.model, program.guide, X)
        found.append(torch.autograd.grad(loss, list(program.parameters())))
    torch.testing.assert_close(found[0][2], found[1][2])
    assert not torch.allclose(found[0][0], found[1][0])


def test_an_upper_bound_does_not_add_up_with_the_divergence_of_a_shared_latent():
    program = Shared()
    with pytest.raises(ValueError, match="guide: .*'w'.*CUBO"):
        E.CUBO().loss(program.model, program.guide, X)


@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE])
def test_a_guide_that_runs_the_model(cls):
    """The sites that it observes, and its factors, belong to the model and count once."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0))
            pyro.factor("f", 0.3 * x)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    pyro.clear_param_store()
    guide = AutoNormalMessenger(model, init_scale=0.5)
    options = {"analytic_kl": False} if cls is E.ELBO else {}
    for _ in range(2):
        torch.manual_seed(0)
        ours = cls(num_particles=1, **options).loss(model, guide, X)
    torch.manual_seed(0)
    assert ours == pytest.approx(pyro.infer.Trace_ELBO().loss(model, guide, X))
    pyro.clear_param_store()


@pytest.mark.parametrize(
    "read", [float, int, bool, lambda y: [0.0, 1.0][y.long()]], ids=["float", "int", "bool", "index"]
)
@pytest.mark.parametrize("where", ["guide", "model"])
def test_a_value_that_is_read_as_a_number_is_not_enumerated(read, where):
    """The program needs one value at a time, as its mark for sequential enumeration says."""

    def model():
        y = pyro.sample("y", dist.Bernoulli(0.5))
        shift = float(read(y)) if where == "model" else 0.0
        pyro.sample("x", dist.Normal(shift, 1.0), obs=torch.tensor(0.3))

    def guide():
        y = pyro.sample("y", dist.Bernoulli(0.4), infer={"enumerate": "sequential"})
        if where == "guide":
            read(y)

    with pytest.raises(ValueError, match="infer: .*'y'"):
        E.Enumeration().loss(model, guide)
    assert math.isfinite(E.ReinforceLOO(num_particles=2, particles_per_pass=1).loss(model, guide))


@pytest.mark.parametrize("estimator", [E.StickingTheLanding(), E.DReG(num_particles=2)])
def test_a_guide_with_a_module_of_pyro_runs_again_without_a_warning(estimator):
    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(1, 1)

        def forward(self, x):
            pyro.module("net", self.net)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.net(x[:, None])[:, 0], 1.0))
                pyro.sample("y", dist.Normal(z, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            y = pyro.sample("y", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    guide = Guide()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = estimator.differentiable_loss(model, guide, torch.tensor([0.3, -1.0]))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, list(guide.parameters())))
