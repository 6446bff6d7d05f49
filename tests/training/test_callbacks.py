"""Callbacks: their state belongs to one run, they return None or a bool, and they run after epochs or steps."""

import functools
import inspect

import numpy as np
import pytest
import torch
from helpers.runs import VALID, X, program, train

import pyro_vae as pv
from pyro_vae.training import Callback, EarlyStopping, Log, TensorBoard

#: Arguments of the callbacks that need some.
ARGUMENTS = {TensorBoard: lambda folder: (folder / "board",), Log: lambda folder: (lambda metrics, step: None,)}
EXPORTED = [
    cls
    for cls in vars(pv.training).values()
    if inspect.isclass(cls) and issubclass(cls, Callback) and cls is not Callback
]


@pytest.mark.parametrize("cls", EXPORTED)
def test_a_callback_starts_again_in_a_second_run(cls, tmp_path):
    """A used object gives the losses, weights and state of a new one."""
    ends = []
    for folder in (tmp_path / "used", tmp_path / "new"):
        callback = cls(*ARGUMENTS.get(cls, lambda folder: ())(folder))
        if folder.name == "used":
            train(program=program(functools.partial(pv.nets.MLP, hidden=(3,))), callbacks=[callback], epochs=4)
        vae, history = train(callbacks=[callback], epochs=2, seed=8)
        ends.append((history["loss"], vae.state_dict(), callback.state_dict()))
    (losses, weights, state), (wanted, expected, new) = ends
    assert losses == wanted
    torch.testing.assert_close((weights, state), (expected, new), rtol=0, atol=0)


class Counts(Callback):
    """Counts its calls, from the start of each run."""

    def on_train_start(self, program, *, has_valid):
        self.calls, self.has_valid = [], has_valid

    def on_step_end(self, program, metrics):
        self.calls.append(("step", metrics["step"]))

    def on_epoch_end(self, program, metrics):
        self.calls.append(("epoch", metrics["epoch"]))

    def on_train_end(self, program):
        self.calls.append("end")


def test_the_order_of_the_calls():
    counts = Counts(every=2)
    for valid in (VALID, None):
        train(callbacks=[counts], batch_size=7, valid=valid)
        assert counts.calls == [("step", 2), ("epoch", 0), ("step", 4), ("step", 6), ("epoch", 1), "end"]
        assert counts.has_valid is (valid is not None)


def test_a_callback_whose_run_did_not_start_is_not_ended():
    """EarlyStopping would overwrite the second program with the weights of the first."""

    class Refuses(Callback):
        def on_train_start(self, program, *, has_valid):
            raise RuntimeError("no")

    stop = EarlyStopping()
    train(callbacks=[stop])
    vae = program()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(RuntimeError, match="no"):
        train(program=vae, callbacks=[Refuses(), stop])
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True), np.array(True)])
@pytest.mark.parametrize("kind", ["function", "step", "epoch"])
def test_true_of_any_kind_stops(value, kind):
    class Stops(Callback):
        def on_step_end(self, program, metrics):
            return value if kind == "step" else None

        def on_epoch_end(self, program, metrics):
            return value if kind == "epoch" else None

    callback = Stops(every=3) if kind != "function" else lambda metrics, step: value
    _, history = train(callbacks=[callback, lambda metrics, step: False], epochs=3)
    assert history["step"] == {"function": [2], "step": [2, 3], "epoch": [2]}[kind]


@pytest.mark.parametrize("value", [None, False, np.bool_(False), torch.tensor(False)])
def test_none_and_false_continue(value):
    assert len(train(callbacks=[lambda metrics, step: value], epochs=3)[1]) == 3


@pytest.mark.parametrize("value", [0, 1, 12.0, "yes", "", [], {"stop": True}, np.array([True]), torch.ones(3)])
@pytest.mark.parametrize("every", [None, 1])
def test_other_answers_are_refused(value, every):
    """`lambda metrics, step: file.write(...)` returns a number of characters, which does not mean "stop"."""

    def odd(metrics, step):
        return value

    with pytest.raises(TypeError, match="callbacks: .*odd"):
        train(callbacks=[Log(odd, every=every)])


@pytest.mark.parametrize("wrong", [lambda metrics: None, lambda a, b, c: None, EarlyStopping, 3, "print"])
def test_what_cannot_be_called_with_metrics_and_step_is_refused_before_training(wrong):
    with pytest.raises(TypeError, match="callbacks: "):
        train(callbacks=[wrong])
    with pytest.raises(TypeError, match="callbacks: "):
        Log(wrong)


@pytest.mark.parametrize("every", [0, 1.5, True, "2"])
def test_every_is_a_number_of_steps(every):
    with pytest.raises(ValueError, match="every"):
        Log(print, every=every)
    with pytest.raises(ValueError, match="every"):
        Callback(every=every)


@pytest.mark.parametrize("compile", [False, pv.training.eager_graph])
def test_metrics_of_a_step_are_means_in_nats_per_example(compile):
    rows = []
    _, history = train(callbacks=[Log(lambda m, s: rows.append(m), every=1)], batch_size=5, epochs=1, compile=compile)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for name in ("loss", "kl", "reconstruction"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(history[0][name], rel=1e-5)
    assert {row["beta"] for row in rows} == {1.0}


def test_a_step_that_is_not_finite_is_reported_and_not_logged():
    rows = []

    def poison(metrics, step):
        rows.append(metrics)
        with torch.no_grad():
            vae.likelihood.net.body[0].weight.fill_(float("nan"))

    vae = program()
    with pytest.raises(pv.training.NonFiniteError):
        train(program=vae, callbacks=[Log(poison, every=1)])
    assert len(rows) == 1


class Slope(Callback):
    """A state that changes after every step, and stops the training in the middle of an epoch."""

    def on_train_start(self, program, *, has_valid):
        self.losses = []

    def on_step_end(self, program, metrics):
        self.losses.append(metrics["loss"])
        return len(self.losses) == 5

    def state_dict(self):
        return {"losses": self.losses} if self.losses else {}

    def load_state_dict(self, state):
        self.losses = state["losses"]


@pytest.mark.parametrize("end", [1, 2, 3, 4])
def test_a_callback_per_step_is_resumed(end, tmp_path):
    """Its state is empty at first, and the training stops at the same step."""
    whole, cut = Slope(every=1), Slope(every=1)
    _, wanted = train(callbacks=[whole], epochs=4)
    assert wanted["step"] == [2, 4, 5]

    def interrupt(metrics, step):
        if step == end:
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        train(tmp_path, callbacks=[cut, Log(interrupt, every=1)], epochs=4)
    _, history = train(tmp_path, callbacks=[cut], epochs=4)
    assert history["loss"] == wanted["loss"]
    assert cut.losses == whole.losses
    assert len(X) == 20


def test_a_fit_inside_a_callback_leaves_training_mode():
    """A program that a callback has trained or set to evaluation mode continues in training mode."""
    vae, modes = program(), []

    def inner(metrics, step):
        modes.append(vae.training)
        pv.fit(vae, X[:8], epochs=1, progress=False)

    pv.fit(vae, X[:16], epochs=3, callbacks=[inner], progress=False)
    assert modes == [True, True, True]
    assert not vae.training
