"""Errors and warnings of training, evaluation and tasks name the argument to change."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import pyro_vae as pv

ROOT = Path(pv.__file__).parent
FILES = [path for room in ("training", "evaluation", "tasks") for path in sorted((ROOT / room).rglob("*.py"))]

#: Errors that no argument causes: they end up inside of another message, or name a package or a key.
OTHERS = {"Unsupported", "Interrupted", "LostRankError", "ImportError", "KeyError", "OSError"}

#: Errors of damaged files, which `damaged` or `CheckpointError` wrap into a message with the path of the file.
WRAPPED = {
    "expected a folder, got a link",
    "it contains the state of {}",
    "random: expected the random state of at least one rank",
    "unknown key {}",
    "{} is not a JSON number",
    "schema: expected at most {}, which pyro_vae {} reads, got {}. Update pyro_vae",
    "{} of parameter {}: expected shape {}",
}


def arguments():
    """The names of all arguments of public functions, classes and methods."""
    found = set()
    rooms = (pv, pv.training, pv.evaluation, pv.tasks, pv.estimators, pv.programs)
    for thing in (getattr(room, name) for room in rooms for name in room.__all__):
        methods = [f for _, f in inspect.getmembers(thing, inspect.isfunction)] if inspect.isclass(thing) else []
        for function in (thing, *methods):
            if callable(function) and not (inspect.isclass(function) and issubclass(function, BaseException)):
                found |= set(inspect.signature(function).parameters)
    return found - {"self", "args", "kwargs", "options"}


ARGUMENTS = arguments()


def text(node):
    """A message with {} in place of values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return text(node.left) + text(node.right)
    return "{}"


def messages(path):
    """Yield line, name of the exception or of the function, and message of each error and warning of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = ast.unparse(call.func)
        if isinstance(node, ast.Raise) or name in ("warnings.warn", "logger.warning", "log.warning"):
            yield node.lineno, name, text(call.args[0])


def names_an_argument(message):
    """Whether a message begins with the name of an argument or with a value, or names an argument later."""
    named = [name for name in re.findall(r"(?:^|[^\w.])([a-z_]+)(?:\[\{\}\])?: ", message) if name in ARGUMENTS]
    return bool(named) or bool(re.match(r"\{\}(: | \()|\{\}$", message))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_errors_and_warnings_name_an_argument(path):
    wrong = [
        f"{line}: {name}: {message}"
        for line, name, message in messages(path)
        if name not in OTHERS and message not in WRAPPED and not names_an_argument(message)
    ]
    assert not wrong


def test_the_rule_notices_what_it_should():
    assert names_an_argument("batch_size: expected an int")
    assert names_an_argument("{}: expected an int")
    assert names_an_argument("context[{}]: expected {} rows")
    assert not names_an_argument("Expected more than 1 value per channel when training")
    assert not names_an_argument("step {}: the loss is not finite")


def test_options_without_a_name_are_refused_with_the_names():
    vae = pv.VAE.example()
    cases = {
        r"VAE\(prior=..., likelihood=..., posterior=": lambda: pv.VAE(vae.prior, vae.likelihood, vae.posterior),
        r"Normal\(latent, shape, net=": lambda: pv.likelihoods.Normal(2, (4,), pv.nets.MLP),
        "num_particles=": lambda: pv.estimators.ELBO(5),
        r"StandardNormal\(latent\)": lambda: pv.priors.StandardNormal(2, 3),
    }
    for said, make in cases.items():
        with pytest.raises(TypeError, match=f"without a name, got .* Write .*{said}"):
            make()
