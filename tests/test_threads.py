"""Calls from several threads on one program return the values of the same calls in one thread."""

import copy
import functools
import inspect
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pyro
import pytest
import torch
from helpers.runs import in_child
from pyro.poutine.messenger import Messenger
from torch.utils._pytree import tree_flatten

import pyro_vae as pv
from pyro_vae import evaluation, tasks
from pyro_vae._util.lock import LOCK, in_turn

THREADS = 4
NET = functools.partial(pv.nets.MLP, hidden=(4,))
X = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)).round()
Y = torch.arange(8) % 2
WIDE = torch.rand(40, 4, generator=torch.Generator().manual_seed(1)).round()
FACTORS = torch.stack([torch.arange(40) % 2, torch.arange(40) % 3], 1)
STEPS = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(2))
HOLES = X.masked_fill(torch.eye(8, 4, dtype=torch.bool), torch.nan)
QUIET = {"progress": False}


@functools.cache
def programs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "prior": pv.priors.StandardNormal(2),
            "likelihood": pv.likelihoods.Bernoulli(2, (4,), net=NET),
            "posterior": pv.posteriors.MeanFieldNormal((4,), 2, net=NET),
        }
        vae, holes = pv.VAE(**parts), pv.VAE(**copy.deepcopy(parts), missing=True)
        found = {"vae": vae, "holes": holes, "mixture": pv.programs.MixtureVAE.example()}
        found |= {"labels": pv.programs.SemiSupervised.example(), "counts": pv.programs.CountVAE.example()}
        found |= {"sequences": pv.programs.SequenceVAE.example()}
    return found


#: Words in the names of columns that depend on the time of a step.
TIMES = ("seconds", "cost", "signal")


def copied(name):
    """A copy of a program, made while no other thread uses it."""
    with LOCK:
        return copy.deepcopy(programs()[name])


def calls():
    """A call of every public function of evaluation and tasks that takes a program, and of the methods of programs."""
    vae, holes, mixture, labels, counts, sequences = programs().values()
    estimators = [pv.estimators.ELBO(), pv.estimators.IWAE(num_particles=2)]
    cells = counts.sample(8, library=50.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pairs = torch.randn(8, 4)
    return {
        "calibration": lambda: evaluation.calibration(vae, X, num_simulations=20, num_samples=9, **QUIET),
        "compare_estimators": lambda: compared(
            evaluation.compare_estimators(vae, X, estimators[:1], reference_num_particles=20, num_samples=8, **QUIET)
        ),
        "disentanglement": lambda: evaluation.disentanglement(vae, WIDE, FACTORS, num_bins=3, **QUIET),
        "inference_gaps": lambda: evaluation.inference_gaps(vae, X[:2], num_particles=10, num_steps=3, **QUIET),
        "latents": lambda: evaluation.latents(vae, X, num_samples=2, num_aggregated=8, **QUIET),
        "log_likelihood": lambda: evaluation.log_likelihood(vae, X, num_particles=10, batch_size=3, **QUIET),
        "marginal_bounds": lambda: evaluation.marginal_bounds(
            vae, X[:2], num_chains=2, num_steps=4, num_leapfrog_steps=1, num_simulated=2, **QUIET
        ),
        "perplexity": lambda: evaluation.perplexity(counts, cells, num_particles=3, **QUIET),
        "Refined": lambda: tasks.NegativeBound()(evaluation.Refined(vae, num_steps=2, num_particles=2), X),
        "predictive_check": lambda: evaluation.predictive_check(
            vae, X, {"mean": lambda x: x.mean()}, num_samples=3, **QUIET
        ),
        "representation": lambda: evaluation.representation(
            vae, X.repeat(4, 1), Y.repeat(4), num_neighbours=2, num_seeds=1, **QUIET
        ),
        "samples": lambda: evaluation.samples(
            vae, X.repeat(2, 1), X.repeat(2, 1), num_samples=10, features=torch.clone, **QUIET
        ),
        "train_under": lambda: compared(
            evaluation.train_under(
                vae, X, estimators, budget=evaluation.Steps(2), valid=X, num_points=1, num_particles=2, **QUIET
            )
        ),
        "AggregatePosterior": lambda: tasks.generate(vae, 5, prior=tasks.AggregatePosterior(vae, X, 2, **QUIET)),
        "Compressor": lambda: tasks.Compressor(vae).compress(X),
        "Detector": lambda: tasks.Detector(vae, tasks.ImportanceWeighted(num_particles=3), X.repeat(4, 1)).scores(X),
        "attribution": lambda: tasks.attribution(vae, X, num_particles=3, **QUIET),
        "classify": lambda: tasks.classify(labels, pairs, **QUIET),
        "cluster": lambda: tasks.cluster(mixture, pairs, **QUIET),
        "embed": lambda: tasks.embed(vae, X, num_samples=2, **QUIET),
        "export": exported,
        "forecast": lambda: tasks.forecast(sequences, STEPS, num_steps=2, num_samples=3, **QUIET),
        "generate": lambda: tasks.generate(vae, 5, temperature=0.7),
        "impute": lambda: tasks.impute(holes, HOLES, num_particles=5, num_samples=3, **QUIET),
        "init_clusters": lambda: tasks.init_clusters(copied("mixture"), pairs),
        "interpolate": lambda: tasks.interpolate(vae, X[:1], X[1:2], num_steps=3),
        "pseudo_gibbs": lambda: tasks.pseudo_gibbs(holes, HOLES, num_samples=3, burn_in=2, **QUIET),
        "reconstruct": lambda: tasks.reconstruct(vae, X, **QUIET),
        "traverse": lambda: tasks.traverse(vae, X[:1], [-1.0, 1.0]),
        "rate_distortion": lambda: evaluation.rate_distortion({1.0: vae}, X, **QUIET),
        "hide_labels": lambda: tasks.hide_labels(Y, 4),
        "ImportanceWeighted": lambda: tasks.ImportanceWeighted(num_particles=3)(vae, X),
        "NegativeBound": lambda: tasks.NegativeBound()(vae, X),
        "Reconstruction": lambda: tasks.Reconstruction()(vae, X),
        "LikelihoodRegret": lambda: tasks.LikelihoodRegret(num_steps=2)(vae, X),
        "InputComplexity": lambda: tasks.InputComplexity(tasks.NegativeBound())(vae, X),
        "Typicality": lambda: tasks.Typicality(tasks.NegativeBound(), train=X)(vae, X),
        "program.sample": lambda: vae.sample(5),
        "program.reconstruct": lambda: vae.reconstruct(X),
        "fit": fitted,
    }


def fitted():
    """The weights after a training of a copy."""
    vae = copied("vae")
    pv.fit(vae, X, epochs=1, batch_size=4, **QUIET)
    return [p.detach().clone() for p in vae.parameters()]


def exported():
    """The means of an exported decoder."""
    with tempfile.TemporaryDirectory() as folder:
        files = tasks.export(programs()["vae"], folder + "/new", X, parts=["decoder"])
        with LOCK:
            return torch.export.load(files["decoder"]).module()(X[:, :2])


def compared(result):
    """The rows of a comparison without the times."""
    return [{k: v for k, v in row.items() if not any(word in k for word in TIMES)} for row in result.rows()]


def numbers(value):
    """All numbers in a result, as text that is equal if they are."""
    if isinstance(value, evaluation.Result):
        value = value.rows()
    elif hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
        value = vars(value)
    leaves, structure = tree_flatten(value)
    return [leaf.tolist() if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves]


def taking(*arguments):
    """The public functions and classes that take one of these arguments, by name, and the scores of examples."""
    public = {name: getattr(room, name) for room in (evaluation, tasks) for name in room.__all__}
    public = {name: found for name, found in public.items() if not issubclass_of(found, Exception)}
    return {name: found for name, found in public.items() if inspect.signature(found).parameters.keys() & {*arguments}}


def issubclass_of(found, base):
    return inspect.isclass(found) and issubclass(found, base)


def in_turn_from_the_start(found):
    """Whether a function, or the constructor of a class, is decorated by `in_turn`."""
    function = found.__init__ if inspect.isclass(found) else found
    return function.__code__ is in_turn(function).__code__


def test_every_function_that_takes_a_program_or_a_seed_is_called_here():
    """A new function needs a line in the table above."""
    scores = {n for n in tasks.__all__ if issubclass_of(getattr(tasks, n), tasks.Score)} - {"Score"}
    alone = {"disentanglement_of_means"}  # which `disentanglement` calls
    assert taking("program", "programs", "seed").keys() | scores <= calls().keys() | alone
    # the lock is taken for the whole call
    assert all(map(in_turn_from_the_start, taking("program", "programs").values()))


@pytest.fixture
def often():
    """Let threads interrupt each other after few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", calls())
def test_handlers_and_random_state_are_used_under_the_lock(name, monkeypatch):
    """By everything that a call enters, in one thread: no luck decides which threads meet."""
    without = []

    def watch(owner, function):
        original = getattr(owner, function)

        def watched(*args, **kwargs):
            if not LOCK._is_owned():
                without.append(function)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, function, watched)

    for owner, functions in {
        Messenger: ("__enter__", "__exit__"),
        torch: ("manual_seed", "set_rng_state", "randn", "rand", "randn_like", "rand_like", "set_num_threads"),
        torch.random: ("get_rng_state", "set_rng_state"),
        torch.nn.Module: ("train", "register_forward_hook"),
        pyro: ("validation_enabled",),
    }.items():
        for function in functions:
            watch(owner, function)
    call = calls()[name]
    without.clear()
    call()
    assert not without


def test_threads_return_the_values_of_one_thread(often):
    """Four threads make all calls, each in another order."""
    made = list(calls().items())
    wanted = {name: repr(numbers(call())) for name, call in made}
    state = torch.get_rng_state()

    def work(thread):
        first = thread * len(made) // THREADS
        return {name: repr(numbers(call())) for name, call in (*made[first:], *made[:first])}

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS)))
    wrong = {name for each in found for name in wanted if each[name] != wanted[name]}
    assert not wrong
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for program in programs().values() for module in program.modules())


def test_training_and_evaluation_in_two_threads(often):
    """A fit of a program waits for that of another thread, and evaluation for both: the values are those in turn."""
    other = copy.deepcopy(programs()["vae"])

    def train(vae):
        return pv.fit(vae, X, epochs=30, batch_size=4, **QUIET).rows[-1]["loss"]

    wanted = train(copy.deepcopy(other)), train(copy.deepcopy(other))
    trained = [copy.deepcopy(other) for _ in range(2)]

    def score(vae):
        return evaluation.log_likelihood(vae, X, num_particles=3, **QUIET).mean

    with ThreadPoolExecutor(3) as pool:
        losses = pool.map(train, trained)
        scores = pool.submit(lambda: [score(other) for _ in "abc"])
    assert tuple(losses) == wanted
    assert set(scores.result()) == {score(other)}


def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent():
    """DataLoader workers are forked while a thread holds the lock; the process that holds it keeps it in its child."""
    taken, leave = threading.Event(), threading.Event()

    def hold():
        with LOCK:
            taken.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        assert in_child(lambda: not LOCK.acquire(timeout=5)) == 0
    finally:
        leave.set()
        thread.join()
    with LOCK:
        assert in_child(lambda: not LOCK.acquire(timeout=5)) == 0
