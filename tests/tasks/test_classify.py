"""Classification with few labels: two normal clusters with a known Bayes error, and batches that contain labels."""

import functools
import math

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.tasks import classify, hide_labels, labelled_batches

FEATURES, DISTANCE = 20, 1.25
BAYES_ERROR = 0.5 * math.erfc(DISTANCE / math.sqrt(2))
#: Networks without a hidden layer can represent the true model and its posterior of the class.
LINEAR = functools.partial(pv.nets.MLP, hidden=())


def clusters(n, seed):
    """Return n examples of two normal clusters, each DISTANCE from the plane between them, and their classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=g)
    side = DISTANCE / math.sqrt(FEATURES) * (2.0 * y - 1).unsqueeze(1)
    return torch.randn(n, FEATURES, generator=g) + side, y


def make_program(alpha=0.0, classes=2):
    torch.manual_seed(0)
    return pv.programs.SemiSupervised(
        classes=pv.priors.OneHotCategorical(classes),
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Normal(1, (FEATURES,), context=classes, net=LINEAR),
        classifier=pv.posteriors.OneHotCategorical((FEATURES,), classes, net=LINEAR),
        posterior=pv.posteriors.MeanFieldNormal((FEATURES,), 1, context=classes, net=LINEAR),
        alpha=alpha,
    )


class BayesClassifier(pv.Conditional):
    """The exact p(y given x) of the clusters."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2 * DISTANCE / math.sqrt(FEATURES)))

    def forward(self, x):
        logit = self.scale * x.sum(-1)
        return dist.OneHotCategorical(logits=torch.stack([torch.zeros_like(logit), logit], -1))


def test_error_of_the_exact_classifier_is_the_bayes_error():
    """20,000 examples: error and mean probability of the other class within 4 standard errors of the Bayes error."""
    program = make_program()
    program.classifier = BayesClassifier()
    found = classify(program, *clusters(20_000, 1))
    assert abs(found.error - BAYES_ERROR) < 4 * found.std_error
    assert found.std_error == pytest.approx(math.sqrt(BAYES_ERROR * (1 - BAYES_ERROR) / 20_000), rel=0.03)
    other = found.probabilities.min(-1).values.double()
    assert abs(float(other.mean()) - BAYES_ERROR) < 4 * float(other.std()) / math.sqrt(20_000)
    assert str(found).startswith("20,000 examples in 2 classes, error 10.")


@pytest.mark.slow
def test_unlabelled_data_improve_on_the_labels_alone():
    """With 10 labels of 3,000 examples the error is the Bayes error within 4 standard errors; without the rest not."""
    (x, numbers), test = clusters(3000, 0), clusters(5000, 1)
    y = hide_labels(numbers, 10, seed=0)
    labelled = ~y.isnan().any(1)
    settings = {"optimizer": functools.partial(torch.optim.Adam, lr=0.03), "progress": False}
    both, alone = make_program(0.1 * 100 / 2), make_program(0.1 * 100 / 2)
    pv.fit(both, labelled_batches(x, y, batch_size=100, num_labelled=2), epochs=12, **settings)
    pv.fit(alone, (x[labelled], y[labelled]), epochs=100, **settings)
    both, alone = classify(both, *test), classify(alone, *test)
    assert abs(both.error - BAYES_ERROR) < 4 * both.std_error
    assert alone.error > BAYES_ERROR + 8 * alone.std_error


def test_classes_keep_equal_numbers_of_labels():
    numbers = torch.arange(300) % 3 // 2  # two of three examples are of class 0
    y = hide_labels(numbers, 31, seed=1)
    labelled = ~y.isnan().any(1)
    assert sorted(y[labelled].sum(0).tolist()) == [15, 16]
    assert torch.equal(y[labelled].argmax(1), numbers[labelled])
    assert y[~labelled].isnan().all()
    assert y.shape == (300, 2)
    assert torch.equal(y.nan_to_num(), hide_labels(numbers, 31, seed=1).nan_to_num())
    others = [hide_labels(numbers, 31, seed=seed).nan_to_num() for seed in range(2, 10)]
    assert not any(torch.equal(y.nan_to_num(), other) for other in others)
    assert {int(other.sum(0).argmax()) for other in others} == {0, 1}  # the class with one label more is random


def test_batches_contain_labels_and_an_epoch_every_unlabelled_example_once():
    x = torch.arange(103.0).unsqueeze(1)
    y = hide_labels(torch.arange(103) % 2, 7)
    labelled = ~y.isnan().any(1)
    loader = labelled_batches(x, y, batch_size=10, num_labelled=4)
    batches = list(loader)
    assert len(batches) == len(loader) == 16  # 96 unlabelled examples, 6 per batch
    assert all(int((~b.isnan()).any(1).sum()) == 4 for _, b in batches)
    assert all(torch.equal(y[a[:, 0].long()].nan_to_num(), b.nan_to_num()) for a, b in batches)
    visits = torch.cat([a[:, 0] for a, _ in batches]).long().bincount()
    assert (visits[~labelled] == 1).all()
    assert set(visits[labelled].tolist()) == {9, 10}  # 64 visits of 7 examples
    assert len(labelled_batches(x, y, batch_size=50)) == 3  # 4 labelled examples, their share rounded up


def test_batches_with_context():
    x, c, y = torch.arange(60.0)[:, None], torch.arange(60.0)[:, None] + 100, hide_labels(torch.arange(60) % 2, 7)
    for a, b, labels in labelled_batches((x, c), y, batch_size=10, num_labelled=3):
        assert torch.equal(b, a + 100)
        assert torch.equal(y[a[:, 0].long()].nan_to_num(), labels.nan_to_num())
    with pytest.raises(ValueError, match="^y: "):
        labelled_batches((x, c[:3]), y)


def test_a_share_of_whole_examples_is_not_rounded_up():
    """100 labels of 1,000 examples are 20 of 200, although 0.1 is a little larger in binary."""
    y = hide_labels(torch.arange(1000) % 2, 100)
    assert {int((~b.isnan()).any(1).sum()) for _, b in labelled_batches(torch.zeros(1000, 1), y)} == {20}


def test_seed_determines_the_samples_of_a_stacked_program():
    stacked = pv.programs.StackedSemiSupervised(
        top=make_program(),
        likelihood=pv.likelihoods.Normal(FEATURES, (3,), net=LINEAR),
        posterior=pv.posteriors.MeanFieldNormal((3,), FEATURES, net=LINEAR),
    )
    x = torch.randn(20, 3)
    first, again, other = (classify(stacked, x, seed=seed).probabilities for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_errors_name_the_argument():
    x, y = clusters(20, 0)
    hidden, program = hide_labels(y, 4), make_program(classes=3)
    vae = pv.testing.LinearGaussian().program
    for error, name, call in (
        (ValueError, "y: expected class numbers", lambda: hide_labels(y.float(), 4)),
        (ValueError, "num_labelled", lambda: hide_labels(y, 1)),
        (ValueError, "y: expected at least 2 examples of class 1", lambda: hide_labels([0, 0, 0, 1], 4)),
        (ValueError, "y: expected shape", lambda: labelled_batches(x, hidden[:3])),
        (ValueError, "num_labelled", lambda: labelled_batches(x, hidden, batch_size=10, num_labelled=10)),
        (ValueError, "num_labelled", lambda: labelled_batches(x, hidden, batch_size=10, num_labelled=0)),
        (ValueError, "y: .* got 20 labels", lambda: labelled_batches(x, hidden.nan_to_num())),
        (ValueError, "y: .* got 0 labels", lambda: labelled_batches(x[:0], hidden[:0])),
        (ValueError, "batch_size", lambda: labelled_batches(x, hidden, batch_size=1)),
        (ValueError, "x: .* without labels", lambda: classify(make_program(), (x, hidden))),
        (TypeError, "program", lambda: classify(vae, x)),
        (ValueError, "y: .* shape", lambda: classify(program, x, y[:3])),
        (ValueError, "y: .* from 0 to 2", lambda: classify(program, x[:3], [1, 2, 3])),
        (ValueError, "y: .* from 0 to 2", lambda: classify(program, x[:3], [-1, 0, 1])),
        (ValueError, "y: .* numpy.unique", lambda: classify(program, x[:3], ["a", "b", "c"])),
    ):
        with pytest.raises(error, match=name):
            call()
