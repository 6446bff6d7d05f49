"""The page of the documentation with what each estimator does on each small program."""

from pathlib import Path

from helpers import shelf
from helpers.small_programs import programs

PAGE = Path(__file__).parents[2] / "tutorials" / "site" / "estimators_on_programs.md"
MARKS = {"exact": "✓", "refused": "–"}
HEAD = """# Estimators on programs

What each estimator does on programs other than the usual one, which has one plate of data with its latents inside. On
each program below (a model and a guide of a few lines) an estimator either has the exact value and the exact gradient
of what it estimates (✓), or it refuses the program by an error that names the site and the way out (–). The tests
check every mark: expectations are computed exactly, over all values of discrete latents and over noise with the right
moments, and agree to seven digits. The programs are in `tests/helpers/small_programs_*.py`, and
`python tests/test_estimators_page.py` writes this page. Estimators with the same marks share a column.
"""


def sections():
    """Return the names of the programs by heading."""
    headings = {
        "small_programs_plates": "Plates",
        "small_programs_shared": "Latents that all examples share",
        "small_programs_discrete": "Discrete latents",
        "small_programs_enumeration": "Sites of the model alone, chains and marks",
        "small_programs_masks": "Masks and scales",
        "small_programs_sites": "Layers, factors, other sites and arguments",
        "small_programs_random": "Samplers",
    }
    found = {heading: [] for heading in (*headings.values(), "Invalid programs")}
    for name, program in programs().items():
        heading = headings[program.file] if program.valid else "Invalid programs"
        found[heading].append(name)
    return found


def text(marks):
    """Return the page for the marks of each program and estimator."""
    lines = [HEAD]
    names = sorted((cls.__name__ for cls in shelf.classes()), key=str.lower)
    for heading, rows in sections().items():
        columns = {}
        for name in names:
            columns.setdefault(tuple(marks[row, name] for row in rows), []).append(name)
        lines += [f"## {heading}", "", f"| program | {' | '.join(', '.join(c) for c in columns.values())} |"]
        lines.append("|---|" + ":-:|" * len(columns))
        lines += [f"| {row} | {' | '.join(column[i] for column in columns)} |" for i, row in enumerate(rows)]
        lines.append("")
    return "\n".join(lines)


def committed():
    """Return the marks of the committed page by program and estimator."""
    marks, groups = {}, []
    for line in PAGE.read_text().splitlines() if PAGE.exists() else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| program |"):
            groups = [cell.split(", ") for cell in cells[1:]]
        elif line.startswith("| "):
            marks |= {(cells[0], name): mark for group, mark in zip(groups, cells[1:], strict=True) for name in group}
    return marks
