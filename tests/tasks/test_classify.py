"""Few labels: two normal clusters, whose Bayes error is known, and batches that all hold labels."""

import functools
import math

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.tasks import classify, hide_labels, labelled_batches

FEATURES, DISTANCE = 20, 1.25
BAYES = 0.5 * math.erfc(DISTANCE / math.sqrt(2))
#: Programs without a hidden layer: the true model and its posterior of the class are within reach.
LINEAR = functools.partial(pv.nets.MLP, hidden=())


def clusters(n, seed):
    """Return n data of two normal clusters, DISTANCE on either side of the plane between them, and their classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=g)
    side = DISTANCE / math.sqrt(FEATURES) * (2.0 * y - 1).unsqueeze(1)
    return torch.randn(n, FEATURES, generator=g) + side, y


def program(alpha):
    torch.manual_seed(0)
    return pv.programs.SemiSupervised(
        classes=pv.priors.OneHotCategorical(2),
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Normal(1, (FEATURES,), context=2, net=LINEAR),
        classifier=pv.posteriors.OneHotCategorical((FEATURES,), 2, net=LINEAR),
        posterior=pv.posteriors.MeanFieldNormal((FEATURES,), 1, context=2, net=LINEAR),
        alpha=alpha,
    )


class Exact(pv.Conditional):
    """The exact p(y given x) of the clusters."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2 * DISTANCE / math.sqrt(FEATURES)))

    def forward(self, x):
        logit = self.scale * x.sum(-1)
        return dist.OneHotCategorical(logits=torch.stack([torch.zeros_like(logit), logit], -1))


def test_error_of_the_exact_classifier_is_the_bayes_error():
    """20,000 data: within 4 standard errors, which are the binomial ones; a wrong class for each probability."""
    exact = program(0.0)
    exact.classifier = Exact()
    found = classify(exact, *clusters(20_000, 1))
    assert abs(found.error - BAYES) < 4 * found.standard_error
    assert found.standard_error == pytest.approx(math.sqrt(BAYES * (1 - BAYES) / 20_000), rel=0.03)
    # the mean probability of the class not chosen is the Bayes error as well
    other = found.probabilities.min(-1).values.double()
    assert abs(float(other.mean()) - BAYES) < 4 * float(other.std()) / math.sqrt(20_000)
    assert str(found).startswith("20,000 data in 2 classes, error 10.")


@pytest.mark.slow
def test_few_labels_and_unlabelled_data_beat_the_labels_alone():
    """10 labels of 3,000 data reach the Bayes error within 4 standard errors, which 10 labels alone do not."""
    (x, numbers), test = clusters(3000, 0), clusters(5000, 1)
    y = hide_labels(numbers, 10, seed=0)
    few = ~y.isnan().any(1)
    settings = {"optimizer": functools.partial(torch.optim.Adam, lr=0.03), "progress": False}
    both, alone = program(0.1 * 100 / 2), program(0.1 * 100 / 2)
    pv.fit(both, labelled_batches(x, y, batch_size=100, labelled=2), epochs=12, **settings)
    pv.fit(alone, (x[few], y[few]), epochs=100, **settings)
    ours, theirs = classify(both, *test), classify(alone, *test)
    assert abs(ours.error - BAYES) < 4 * ours.standard_error
    assert theirs.error > BAYES + 8 * theirs.standard_error


def test_labels_are_kept_in_equal_shares_by_seed():
    numbers = torch.arange(1000) % 3 // 2  # two of three data are of class 0
    y = hide_labels(numbers, 101, seed=1)
    known = ~y.isnan().any(1)
    assert sorted(y[known].sum(0).tolist()) == [50, 51]
    assert torch.equal(y[known].argmax(1), numbers[known])
    assert torch.equal(y[~known].isnan(), torch.ones(899, 2, dtype=torch.bool))
    assert torch.equal(y.nan_to_num(), hide_labels(numbers, 101, seed=1).nan_to_num())
    assert not torch.equal(y.nan_to_num(), hide_labels(numbers, 101, seed=2).nan_to_num())
    extra = {int(hide_labels(numbers, 101, seed=s).nansum(0).argmax()) for s in range(20)}
    assert extra == {0, 1}


def test_each_batch_holds_labels_and_an_epoch_every_other_row_once():
    x = torch.arange(1003.0).unsqueeze(1)
    y = hide_labels(torch.arange(1003) % 2, 7)
    known = ~y.isnan().any(1)
    loader = labelled_batches(x, y, batch_size=50, labelled=5)
    batches = list(loader)
    assert len(batches) == len(loader) == 23  # 996 rows, 45 a batch
    assert all(int((~b.isnan()).any(1).sum()) == 5 for _, b in batches)
    assert all(torch.equal(y[a[:, 0].long()].nan_to_num(), b.nan_to_num()) for a, b in batches)
    seen = torch.cat([a[:, 0] for a, _ in batches]).long().bincount()
    assert (seen[~known] == 1).all()
    assert set(seen[known].tolist()) == {16, 17}  # 115 places for 7 rows
    assert sum(1 for _ in labelled_batches(x, y, batch_size=500)) == 3  # 4 labelled rows, their share rounded up


def test_a_share_in_whole_rows_is_not_rounded_up():
    """100 labels of 1,000 rows are 20 of 200, though 0.1 is a little more in binary."""
    y = hide_labels(torch.arange(1000) % 2, 100)
    found = {int((~b.isnan()).any(1).sum()) for _, b in labelled_batches(torch.zeros(1000, 1), y)}
    assert found == {20}


def test_classifying_leaves_the_random_streams_alone_and_draws_by_seed():
    torch.manual_seed(0)
    top = program(0.0)
    stacked = pv.programs.StackedSemiSupervised(
        top=top,
        likelihood=pv.likelihoods.Normal(FEATURES, (3,)),
        posterior=pv.posteriors.MeanFieldNormal((3,), FEATURES),
    )
    x, state = torch.randn(600, 3), torch.get_rng_state()
    first, again, other = (classify(stacked, x, seed=seed).probabilities for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_input():
    x, y = clusters(20, 0)
    with pytest.raises(ValueError, match="y: expected class numbers of at least 0"):
        hide_labels(y.float(), 4)
    with pytest.raises(ValueError, match="n: expected an int of at least 2"):
        hide_labels(y, 1)
    with pytest.raises(ValueError, match=r"y: expected at least 2 data of class 1 for 4 labels, got 1"):
        hide_labels([0, 0, 0, 1], 4)
    hidden = hide_labels(y, 4)
    with pytest.raises(ValueError, match=r"y: expected shape \(20, classes\)"):
        labelled_batches(x, hidden[:3])
    with pytest.raises(ValueError, match="labelled: expected an int from 1 to batch_size - 1 = 9, got 10"):
        labelled_batches(x, hidden, batch_size=10, labelled=10)
    with pytest.raises(ValueError, match="y: expected rows with and without a label, got 20 labels in 20 rows"):
        labelled_batches(x, hidden.nan_to_num())
    with pytest.raises(ValueError, match="y: expected rows with and without a label, got 0 labels in 0 rows"):
        labelled_batches(x[:0], hidden[:0])
    with pytest.raises(ValueError, match="batch_size: expected an int of at least 2, got 1"):
        labelled_batches(x, hidden, batch_size=1)
    with pytest.raises(ValueError, match="x: expected rows of data, without labels beside them, got 2 columns"):
        classify(program(0.0), (x, hidden))
    with pytest.raises(TypeError, match="program: expected one that classifies"):
        classify(pv.testing.LinearGaussian().program, x)
    with pytest.raises(ValueError, match=r"y: expected class numbers of shape \(20,\)"):
        classify(program(0.0), x, y[:3])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 2, 3], "y: expected class numbers from 0 to 2, as the program has 3 classes, got 1 to 3"),
        ([-1, 0, 1], "got -1 to 1"),
        (["a", "b", "c"], r"y: expected class numbers .* numpy.unique\(y, return_inverse=True\)"),
    ],
)
def test_classes_that_the_program_does_not_have(y, message):
    """A number beyond the classes would count as an error of the program."""
    program = pv.programs.SemiSupervised(
        classes=pv.priors.OneHotCategorical(3),
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (4,), context=3),
        classifier=pv.posteriors.OneHotCategorical((4,), 3),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3),
    )
    with pytest.raises(ValueError, match=message):
        pv.tasks.classify(program, torch.randn(3, 4), y)
