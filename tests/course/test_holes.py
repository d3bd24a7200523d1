"""What a careful teacher would try: wrong functions that look right, and right ones that look otherwise.

answers/wrong.txt and answers/right.txt hold them; each takes the place of the solution's own function. The search over
small changes of the solutions is python -m tests.hard.survivors.
"""

import re
from pathlib import Path

import pytest

from .desk import solved, verdict_on_text, with_function

pytestmark = solved


def answers(name):
    """{"03 n alone below": text} of a file of answers."""
    text = (Path(__file__).parent / "answers" / f"{name}.txt").read_text(encoding="utf-8")
    parts = re.split(r"^== (.+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


WRONG, RIGHT = answers("wrong"), answers("right")


@pytest.mark.parametrize("what", WRONG)
def test_wrong_ones_are_refused(what):
    verdict = verdict_on_text(what[:2], with_function(what[:2], WRONG[what]))
    assert verdict.status == "fail" and verdict.first.fact and "NameError" not in verdict.first.fact


@pytest.mark.parametrize("what", RIGHT)
def test_right_ones_are_accepted(what):
    verdict = verdict_on_text(what[:2], with_function(what[:2], RIGHT[what]))
    assert verdict.status == "pass", verdict.message
