"""The worked example, the worksheets, and the diagnosis of answers."""

import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from lora_np.byhand import __main__ as byhand
from lora_np.byhand import mistakes
from lora_np.byhand.handout import as_key, as_markdown, as_text, three_ways
from lora_np.byhand.mistakes import MISTAKES, diagnose, predictions, same
from lora_np.byhand.worksheet import at_start, by_engine, by_hand, by_slope, worked_example
from lora_np.support.notation import matrix, number

draw = cache(mistakes.draw)  # a sheet is drawn up to a thousand times before it is one


def run(capsys, *arguments):
    """(exit status, stdout, stderr) of the command."""
    try:
        status = byhand.main(list(arguments))
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def test_the_worked_example_line_by_line(capsys):
    status, out, err = run(capsys)
    assert status == 0 and not err
    values, name = {}, None
    for line in out[out.index("Forward"):].splitlines():
        if match := re.fullmatch(r"  (.{28})(\[[\d,]+\])? +(.+?) += (\S+)", line):
            if match[1][0] != " ":  # else a remark, or nothing, below the formula
                name = match[1].strip().split(" = ")[0]
            values.setdefault(name, []).append((match[3], match[4]))
    assert {name: " ".join(v for _, v in rows) for name, rows in values.items()} == {
        "s": "2", "W0 x": "-7 -1", "u": "3", "v": "6 1.5", "h": "5 2", "e": "2 -3", "L": "6.5", "dh": "2 -3",
        "dv": "4 -6", "dB": "12 -18", "du": "5", "dA": "10 15", "dx": "8 -4"}
    for rows in values.values():  # what was put in gives what came out
        for put_in, value in rows:
            expression = put_in.replace("1/2 (", "1/2 * (").replace(")(", ")*(").replace("^", "**")
            assert eval(expression) == float(value)
    assert "not computed (frozen)" in out and "still flows through W0 to x" in out
    table = [line.split() for line in out.splitlines() if line.endswith(" agree")]
    assert table == [
        ["A[0,0]", "50.5", "30.5", "10", "10", "10", "agree"], ["A[0,1]", "98", "68", "15", "15", "15", "agree"],
        ["B[0,0]", "36.5", "12.5", "12", "12", "12", "agree"], ["B[1,0]", "6.5", "42.5", "-18", "-18", "-18", "agree"],
        ["x[0]", "72.5", "56.5", "8", "8", "8", "agree"], ["x[1]", "17", "25", "-4", "-4", "-4", "agree"]]


def test_the_start_is_vacuous_for_A(capsys):
    out = run(capsys, "--init")[1]
    assert re.findall(r"(A\[0,.\]) +68 +68 +0 +0 +0 +vacuous: both zero", out) == ["A[0,0]", "A[0,1]"]
    right = by_hand(at_start(worked_example()))
    assert matrix(right["h"]) == "[-7 -1]" and right["L"] == 68 and matrix(right["dB"]) == "[-60; -36]"


def test_merged(capsys):
    out = run(capsys, "--merge")[1]
    assert matrix(by_hand(worked_example())["W'"]) == "[10 -5; 4 -2]"
    assert re.search(r"\[0\] +\(10\)\(2\) \+ \(-5\)\(3\) += 5\n", out) and "is dx again" in out


@pytest.mark.parametrize("seed, rank", [(None, 1), *((seed, rank) for seed in range(6) for rank in (1, 2))])
def test_three_ways_agree(seed, rank, monkeypatch):
    monkeypatch.setattr(byhand, "draw", draw)
    for sheet in (byhand.choose(seed, rank, False), byhand.choose(seed, rank, True)):
        right, engine = by_hand(sheet), by_engine(sheet)
        for name, (above, below) in by_slope(sheet).items():
            np.testing.assert_allclose((above - below) / 2, right[f"d{name}"], rtol=0, atol=1e-9)
            np.testing.assert_allclose(engine[f"d{name}"], right[f"d{name}"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(engine["h"], right["h"], atol=1e-12)
        assert engine["dW0"] is None and engine["L"] == pytest.approx(right["L"])


def test_a_wrong_engine_would_be_seen(monkeypatch):
    wrong = {**by_engine(worked_example()), "dx": np.array([8.0, -4.5])}
    monkeypatch.setattr("lora_np.byhand.handout.by_engine", lambda sheet: wrong)
    assert [row[-1] for row in three_ways(worked_example())][-2:] == ["agree", "differ by 0.5"]


@pytest.mark.parametrize("rank", [1, 2])
def test_drawn_sheets_are_short_and_tell_mistakes_apart(rank):
    for seed in range(8):
        sheet = draw(seed, rank)
        right = by_hand(sheet)
        for value in (sheet.x, sheet.y, sheet.W0, sheet.A, sheet.B, *right.values()):
            assert np.all(value) and not np.any(2 * np.asarray(value) % 1) and np.abs(value).max() <= 40
        known = predictions(sheet, right)
        shown = [m for m in known if not same(known[m]["dx"], right["dx"])]
        assert len(shown) == (12 if rank == 1 else 14)
        assert all(diagnose(sheet, {"dx": known[m]["dx"]})["dx"][0] == m.name for m in shown)
    assert same(draw(3, rank).W0, mistakes.draw(3, rank).W0) and not same(draw(3, rank).W0, draw(4, rank).W0)


@pytest.mark.parametrize("m", MISTAKES, ids=lambda m: m.name)
def test_every_mistake_is_named(m):
    """From all the lines that someone who made the mistake would hand in; and it alone."""
    sheet = draw(5, rank=2)
    right = by_hand(sheet)
    answers = by_hand(sheet, m.wrong)
    found = diagnose(sheet, answers)
    wrong = [name for name in right if not same(answers[name], right[name])]
    assert wrong and [name for name in found if found[name]] == wrong
    assert all(found[name][:2] == [m.name, m.sentence] for name in wrong)


@pytest.mark.parametrize("answer, name", [
    ("dx=15,-5", "the frozen path dropped from dx"), ("dx=-7,1", "the LoRA path dropped from dx"),
    ("dx=14,0", "W0 for its transpose in dx"), ("dx=16,-8", "the 1/2 of L forgotten"),
    ("dx=23,-9", "scaled twice in the backward pass"), ("dx=-8,4", "the sign of the error reversed"),
    ("dA=12,-18", "dA and dB swapped"), ("dA=10;15", "transposed"), ("dB=6,-9", "the scale forgotten in the backward"),
    ("L=13", "the 1/2 of L forgotten"), ("h=-1,0.5", "the scale forgotten"),
    ("dh=5,2", "y forgotten")])
def test_mistakes_on_the_worked_example(capsys, answer, name):
    status, out, _ = run(capsys, "--answer", answer)
    assert status == 1 and f"wrong: {name}" in out


def test_alpha_for_alpha_over_r_needs_rank_2():
    assert not any("alpha" in m.name for m in predictions(worked_example(), by_hand(worked_example())))
    sheet = draw(1, rank=2)
    right = by_hand(sheet)
    assert diagnose(sheet, {"h": right["W0x"] + sheet.alpha * right["v"]})["h"][0] == "alpha for alpha/r"


def test_two_mistakes_that_coincide_are_both_named(capsys):
    out = run(capsys, "--answer", "dB=24,-36")[1]
    assert "scaled twice in the backward pass or the 1/2 of L forgotten" in out and "your dx would tell" in out
    out = run(capsys, "--answer", "dB=24,-36", "dx=16,-8")[1]
    assert out.count("wrong: the 1/2 of L forgotten\n") == 2 and "scaled twice in the backward pass would" in out


def test_an_unknown_wrong_value_is_not_guessed_at(capsys):
    for answer in ("dx=7,-4.5", "dB=13,13", "L=6", "dA=99,15"):
        status, out, _ = run(capsys, "--answer", answer)
        assert status == 1 and "no known mistake gives this" in out
        assert not any(m.name in out for m in MISTAKES)
    assert "right in 1 of 2 places" in run(capsys, "--answer", "dA=99,15")[1]


def test_right_answers_in_many_spellings(capsys):
    spellings = ["dB=12,-18", "dl/dx = [8 -4]", "dA=10, 15", "W0 x=−7;−1", "L=13/2", "u=3.0", "h=(5, 2)"]
    status, out, _ = run(capsys, "--answer", *spellings)
    assert status == 0 and out.count("right") == 7 and "wrong" not in out
    assert run(capsys, "--answer", "dB=12;-18", "W'=10,-5;4,-2")[0] == 0


@pytest.mark.parametrize("arguments, text", [
    (["--answer", "dB=1"], "dB has 2 numbers, got 1"), (["--answer", "dB"], "cannot read the answer 'dB'"),
    (["--answer", "dB="], "cannot read the answer"), (["--answer", "dB=1,x"], "cannot read the numbers"),
    (["--answer", "dB=1/0,2"], "cannot read the numbers"), (["--answer", "dB=nan,2"], "cannot read the numbers"),
    (["--answer", "L=6,5"], "written 6.5 or"), (["--answer", "h=(5,2"], "cannot read the numbers"),
    (["--answer", "q=1"], "there is no 'q' on the sheet"), (["--answer", "dW0=0"], "dW0 is not computed"),
    (["--answer", "s=2", "s=3"], "s is answered twice"), (["--answer"], "--answer"),
    (["--rank", "3"], "rank 3 does not fit: W0 is 2 x 2"), (["--rank", "0"], "at least 1, got '0'"),
    (["--seed", "-1"], "--seed"), (["--seed", "1.5"], "got '1.5'"), (["--class", "30"], "--class and --out"),
    (["--out", "x"], "--class and --out"), (["--key", "--worksheet"], "not allowed with"), (["--nope"], "--nope")])
def test_bad_input_is_one_clear_line(capsys, arguments, text):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and not out and err.startswith("byhand: ") and err.count("\n") == 1 and text in err


def test_worksheet_has_blanks_and_no_answers():
    sheet = draw(4, rank=2)
    filled, blank = as_text(sheet, merge=True), as_text(sheet, blank=True, merge=True)
    lines = [page[page.index("Forward"):page.index("Each gradient")].splitlines() for page in (filled, blank)]
    assert [line[:36] for line in lines[0]] == [line[:36] for line in lines[1]]
    values = [re.search(r" = (\S+)$", line[36:]) for line in lines[0]]
    assert sum(map(bool, values)) == sum(line.endswith("] = [____]") for line in lines[1]) == 36
    assert not any(re.search(r"\d", line[36:]) for line in lines[1] if "[____]" in line) and "agree" not in blank
    assert blank.count("[____]") == 36 + 4 * 10


def test_every_page_fits_100_columns():
    for sheet in (worked_example(), at_start(worked_example()), *(draw(seed, 2) for seed in range(8))):
        for page in (as_text(sheet, merge=True), as_text(sheet, blank=True, merge=True), as_key(sheet)):
            assert max(map(len, page.splitlines())) <= 100
            assert not re.search(r"\d\.\d*0(?!\d)|-0(?![.\d])|nan", page)


def test_markdown_tables_are_whole():
    for blank in (False, True):
        tables = [line.count("|") for line in as_markdown(draw(2, 2), blank, merge=True).splitlines() if "|" in line]
        assert set(tables) == ({5, 6} if blank else {5, 8})
    page = as_markdown(draw(2, 2), blank=True, merge=True)
    assert page.count(f"| [{'_' * 38}] | [____] |") == 36 and page.count("[____]") == 36 + 4 * 10
    assert "agree" not in page
    assert not re.search(r"\| -?\d", page[page.index("## Forward"):])


def test_a_class(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(byhand, "draw", draw)
    assert run(capsys, "--class", "30", "--out", str(tmp_path / "new" / "folder"))[0] == 0
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [f.name for f in files] == ["key.md", *(f"sheet_{i:02}.md" for i in range(1, 31))]
    key, *sheets = (f.read_text() for f in files)
    given = {text[text.index("$$"):text.index("## Forward")] for text in sheets}
    assert len(given) == 30
    row = next(line for line in key.splitlines() if line.startswith("| sheet 7, rank 1 |"))
    right = by_hand(draw(7))
    assert [c.strip() for c in row.split("|")[2:-1]] == [matrix(right[q]) for q in right if q != "W'"]
    assert "--seed 7 --answer" in sheets[6]
    assert run(capsys, "--class", "30", "--out", str(tmp_path / "new" / "folder"))[0] == 0
    before = {f: f.read_text() for f in files}
    status, out, err = run(capsys, "--class", "28", "--seed", "40", "--out", str(tmp_path / "new" / "folder"))
    assert status == 2 and not out and "sheet_29.md to sheet_30.md" in err and err.count("\n") == 1
    assert {f: f.read_text() for f in (tmp_path / "new" / "folder").iterdir()} == before
    blocked = tmp_path / "file"
    blocked.write_text("")
    status, _, err = run(capsys, "--class", "2", "--out", str(blocked))
    assert status == 2 and err.startswith(f"byhand: cannot write to {blocked}") and err.count("\n") == 1


def test_the_key_is_in_the_sheets_order(capsys):
    out = run(capsys, "--key")[1]
    assert re.findall(r"^  (\S+) += ", out, re.M) == ["s", "W0x", "u", "v", "h", "e", "L", "dh", "dv", "dB", "du", "dA",
                                                     "dx"]
    assert "dB   = [12; -18]" in out and "A[0,1]  L(+1) 98       L(-1) 68       slope 15" in out


def test_numbers_as_one_writes_them():
    assert [number(v) for v in (2.0, -0.0, -1.25, 100.0, 25.65625)] == ["2", "0", "-1.25", "100", "25.65625"]


def test_as_a_module():
    command = [sys.executable, "-m", "lora_np.byhand", "--answer", "dx=8,-4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("dx = [8 -4]   right\n") and not done.stderr
