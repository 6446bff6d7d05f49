"""The page of the documentation with what each estimator does on each small program is complete.

`python tests/test_estimators_page.py` writes it; `estimators/test_small_programs.py` compares each of its marks.
"""

from helpers import shelf
from helpers.small_programs import programs
from helpers.small_programs_table import MARKS, PAGE, committed, text
from helpers.small_programs_trials import trial


def test_page_lists_every_program_and_estimator():
    marks = committed()
    expected = {(name, cls.__name__) for name in programs() for cls in shelf.classes()}
    assert set(marks) == expected, "run `python tests/test_estimators_page.py`"
    assert text(marks) == PAGE.read_text(), "run `python tests/test_estimators_page.py`"


if __name__ == "__main__":
    found = {(name, cls.__name__): MARKS[trial(cls, p)] for name, p in programs().items() for cls in shelf.classes()}
    PAGE.write_text(text(found))
    print(text(found))
