"""The package, its tests and its guides are written in plain English: standard terms, one word for one thing."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Words to avoid, as regular expressions in which a space is any white space, underscore or hyphen; what to write.
PHRASES = {
    r"(?<!per_)datum": "example, row, observation; per example",
    r"told|tells": "reports, returns, passes, is given",
    r"by hand": "manually",
    r"(go|goes|going|gone|went) on": "resume, continue",
    r"anew": "again, from scratch",
    r"beside|next to it": "in addition, auxiliary",
    r"wherein|whose [^.\n]*? whose": "two sentences",
    r"(move|moves|moved|moving) (a|no|any|the)? ?weights?": "change a weight",
    r"at hand": "available",
    r"first look": "dry run",
    r"(what|that|which) (is|are) (none|no)(?! longer)": "invalid; a positive description",
    r"grades": "ordinal",
    r"LayersIn": "Autocast",
    r"place clusters": "init_clusters",
    r"remed(y|ies)": "hint",
    r"(is|are) to be": "an active verb",
    r"(ask|asks|asked|asking) (for|of)": "take, require, request",
    r"(stand|stands|stood) (in|behind|beside|on|at)(?! for)": "is in; a direct verb",
    r"less (the|its|their|a|an|input)": "minus",
    r"(nats|bits|seconds|ms|milliseconds|minutes|particles|draws|samples|rows|numbers?|values?|points|times|mean|once)"
    r" an? (example|step|row|epoch|batch|digit|image|token|dimension|entry|column|class|pixel|site|seed|core|line|draw"
    r"|sample|point|coordinate|angle|run|pass|word|document)": "per",
}
#: Names that have been replaced.
NAMES = {
    "Follower": "Resumer",
    "Functions": "FunctionProgram",
    "Optimal": "OptimalSigma",
    "Stages": "MultiStep",
    "Watch": "Observer",
    "climb": "score_surrogate",
    "held": "detached_params, stop_gradient",
    "recorded": "eager_graph",
    "settle": "raise_if_nonfinite",
}
SUFFIXES = {".py", ".md", ".js", ".css", ".html", ".yml"}


def compiled(phrase):
    spaced = phrase.replace(" ?", "\0").replace(" ", r"(?:[\s#_-]+)").replace("\0", r"[\s#_-]*")
    return re.compile(rf"(?<![A-Za-z])(?:{spaced})(?![A-Za-z])", re.IGNORECASE)


PATTERNS = [(compiled(phrase), better) for phrase, better in PHRASES.items()]


def files(folder):
    found = [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    return [path for path in found if "__pycache__" not in path.parts and path != Path(__file__)]


def phrases(text):
    """Yield (line, phrase, better) of the phrases in a text."""
    for pattern, better in PATTERNS:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), better


def names(text):
    """Yield (line, name, better) of the old names in Python code."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in NAMES:
            yield token.start[0], token.string, NAMES[token.string]


def faults(path):
    text = path.read_text()
    found = [*phrases(text), *(names(text) if path.suffix == ".py" else ())]
    return [f"{path.relative_to(ROOT)}:{line}: {words!r}, write: {better}" for line, words, better in sorted(found)]


def rooms():
    """Return the folders and files directly below the scanned folders."""
    found = [".github"]
    for top in ("pyro_vae", "tests"):
        found += sorted(f"{top}/{p.name}" for p in (ROOT / top).iterdir() if p.is_dir() and p.name[0] not in "._")
        found.append(f"{top}/*.py")
    return [*found[:1], *(room for room in found[1:] if room != "pyro_vae/__pycache__")]


@pytest.mark.parametrize("room", rooms())
def test_plain_words(room):
    """Each fault is reported as file:line, the words found and what to write."""
    paths = sorted((ROOT / room[:-5]).glob("*.py")) if room.endswith("/*.py") else files(room)
    found = [fault for path in paths if path != Path(__file__) for fault in faults(path)]
    assert not found, f"{len(found)} in {room}\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the bound of a datum", ["datum"]),
        ("estimator.per_datum(x)", []),
        ("the sum by\n    # hand", ["by # hand"]),
        ("def by_hand(): ...", ["by_hand"]),
        ("a rank is told", ["told"]),
        ("what is no scale", ["what is no"]),
        ("a file that is no longer there", []),
        ("besides, it stands for the mean", []),
        ("gone on with by the same command", ["gone on"]),
        ("4 nats an example, ten draws a row", ["nats an example", "draws a row"]),
        ("4 nats per example", []),
    ],
)
def test_what_is_found(text, found):
    assert [words for _, words, _ in phrases(text)] == found


def test_old_names_are_found_in_code_alone():
    text = "from pyro_vae.training import Stages  # recorded\n"
    assert list(names(text)) == [(1, "Stages", "MultiStep")]
