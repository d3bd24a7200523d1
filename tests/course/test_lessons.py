"""The course's pages and figures agree with its scripts; the scripts themselves run under `python -m lessons`."""

import ast
import json
import re
import subprocess
import sys
import types

import matplotlib
import numpy as np
import pytest

from lessons import __main__ as command
from lessons.course.classroom import notebook as in_notebook
from lessons.course.classroom import progress
from lessons.course.pages import figures, notebook, scripts
from lora_np.support import palette

LESSONS = scripts.lessons()
DRAWINGS = scripts.LESSONS / "course" / "pages" / "drawings"
every_lesson = pytest.mark.parametrize("path", LESSONS.values(), ids=LESSONS.keys())


@every_lesson
def test_page_holds_the_prose_and_code_of_its_script(path):
    missing = scripts.drift(path)
    assert missing is None, (f"{path.parent.name}/README.md does not hold this as {path.name} has it; repair: "
                             f"python -m lessons render {path.parent.name[:2]}\n\n{missing}")


def test_drift_sees_one_changed_word(tmp_path):
    script = tmp_path / "lesson.py"
    script.write_text("# %% [markdown]\n# # A title\n#\n# One word.\n\n# %%\nprint(1)\n")
    script.with_name("README.md").write_text(scripts.render(script))
    assert scripts.drift(script) is None
    script.write_text(script.read_text().replace("One word", "One other word"))
    assert "One other word" in scripts.drift(script)


def drawn_by(path):
    """The names of the figures that a lesson draws, in order: each call of its drawings, or of figures.save."""
    text, saves = path.read_text(encoding="utf-8"), r'figures\.save\(\w+, "(\w+)"'
    module = re.search(r"from lessons\.course\.pages\.drawings import (\w+) as draw", text)
    source = (DRAWINGS / f"{module[1]}.py").read_text(encoding="utf-8") if module else ""
    saved = {name: re.search(saves, body)[1] for name, body in
             re.findall(r"^def ([a-z]\w*)\((.*?)(?=^def |^@|\Z)", source, re.S | re.M) if re.search(saves, body)}
    calls = re.findall(rf"^draw\.(\w+)\(|{saves}", text, re.M)
    return [saved[call] if call else name for call, name in calls]


@every_lesson
def test_page_shows_each_figure_with_alt_text(path):
    drawn = drawn_by(path)
    page = path.with_name("README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[([^\]]+)\]\(\.\./\.\./figures/(\w+)\.png\)", page)
    assert [name for _, name in shown] == drawn and drawn
    assert all(len(alt) > 40 for alt, _ in shown)
    assert all(name.startswith(path.parent.name[:2]) for name in drawn)


def test_figures_folder_holds_exactly_what_the_lessons_draw():
    drawn = {name for path in LESSONS.values() for name in drawn_by(path)}
    found = {path.stem: path.stat().st_size for path in figures.TRACKED.glob("*.png")}
    assert set(found) == drawn
    assert max(found.values()) < 200_000


def test_relative_links_resolve():
    top = scripts.LESSONS.parent
    broken = []
    for page in [top / "README.md", *top.glob("*/*.md"), *top.glob("*/*/*.md")]:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(top)}: {target}")
    assert not broken


@every_lesson
def test_script_never_ends_a_cell_on_a_bare_expression(path):
    for cell in scripts.parse(path):
        if cell.kind == "code":
            last = ast.parse(cell.text).body[-1]
            assert not isinstance(last, ast.Expr) or isinstance(last.value, ast.Call), f"line {cell.line}: {cell.text}"


@every_lesson
def test_lesson_states_its_frame(path):
    first, *_, last = [cell.text for cell in scripts.parse(path) if cell.kind == "markdown"]
    for part in ("**Objective.**", "**Minutes.**", "**Before this.**", "**Predict first.**"):
        assert part in first
    assert "\n## Key points\n" in path.with_name("README.md").read_text(encoding="utf-8")
    assert last.startswith("**Exercise.**")
    assert "assert" in path.read_text(encoding="utf-8")


@every_lesson
def test_no_line_of_code_on_a_page_is_longer_than_100_characters(path):
    for cell in scripts.parse(path):
        if cell.kind == "code":
            assert max(map(len, cell.shown.split("\n"))) <= 100, cell.shown
            compile(cell.shown, "cell", "exec")


@every_lesson
def test_an_excerpt_says_its_file_and_is_in_it(path):
    for cell in scripts.parse(path):
        fences = re.findall(r"```(\w*)\n(.*?)```", cell.text, re.S) if cell.kind == "markdown" else []
        named = re.findall(r"From \[[^\]]+\]\(([^)]+)\):\s*```py\n", cell.text.replace("\n[", " ["), re.S)
        excerpts = [text for kind, text in fences if kind == "py"]
        assert len(named) == len(excerpts) and {kind for kind, _ in fences} <= {"py", "bash"}, cell.text
        for target, excerpt in zip(named, excerpts, strict=True):
            source = (path.parent / target).read_text(encoding="utf-8")
            assert all(line.strip() in source for line in excerpt.splitlines()), excerpt


@pytest.mark.parametrize("number", ["01", "08", "09"])
def test_pasting_a_page_s_cells_in_order_runs_and_prints_what_the_page_says(number, tmp_path):
    page = LESSONS[number].with_name("README.md").read_text(encoding="utf-8")
    cells = re.findall(r"```(python|text)\n(.*?)\n```", page, re.S)
    pasted = [f"from lessons.course.pages import figures\nfigures.FOLDER = figures.Path({str(tmp_path)!r})",
              *(text for kind, text in cells if kind == "python")]
    code = f"for cell in {pasted!r}:\n    exec(cell, globals())"
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, cwd=scripts.LESSONS.parent)
    assert done.returncode == 0 and len(pasted) > 4, done.stderr.decode()
    printed = "".join(line for line in done.stdout.decode().splitlines(True) if not line.startswith("figure: "))
    assert printed == "".join(f"{text}\n" for kind, text in cells if kind == "text")


@every_lesson
def test_page_links_to_its_neighbours_and_its_exercise(path):
    page, around = path.with_name("README.md").read_text(encoding="utf-8"), list(LESSONS.values())
    at = around.index(path)
    assert page.count(scripts.links(path)) == 2 and "](../README.md)" in scripts.links(path)
    for other in (*around[max(at - 1, 0):at], *around[at + 1:at + 2]):
        assert f"](../{other.parent.name}/README.md)" in scripts.links(path)
    for exercise in path.parent.glob("ex[0-9][0-9]_*.py"):
        assert f"[{exercise.name}]({exercise.name})" in scripts.parse(path)[-1].text


@pytest.mark.parametrize(("code", "shown"), [
    ("x = 1\nassert x  # page\nprint(x)", "x = 1\nprint(x)"),
    ("x = 1\n\nassert (x ==\n        1)  # page: why\n\nprint(x)", "x = 1\n\nprint(x)"),
    ("for i in x:  # page\n    assert i\ny = 2", "y = 2"),
    ("for i in x:\n    print(i)\n    assert i  # page", "for i in x:\n    print(i)"),
    ("assert x  # page", ""),
    ("x = '# page'\nassert x  # the page", "x = '# page'\nassert x  # the page"),
])
def test_what_only_guards_the_page_is_shown_nowhere(code, shown):
    cell = scripts.Cell("code", code, 1)
    assert cell.shown == shown
    assert cell.unguarded.count("\n") == code.count("\n")  # so that the lines of a traceback are right


def test_guards_run_but_not_where_a_reader_has_changed_the_lesson(tmp_path, monkeypatch, capsys):
    script = tmp_path / "lesson.py"
    script.write_text("# %% [markdown]\n# # 99. A title\n\n# %%\nx = 1\nassert x == 1  # page\nprint(x)\n")
    script.with_name("README.md").write_text(scripts.render(script))
    assert "assert" not in script.with_name("README.md").read_text()
    monkeypatch.setattr(scripts, "lessons", lambda: {"99": script})
    assert command.main(["99"]) == 0
    script.write_text(script.read_text().replace("x = 1", "x = 2"))
    with pytest.raises(AssertionError):
        scripts.execute(script)
    assert command.main(["99"]) == 0
    assert "not what its page shows" in capsys.readouterr().out


def test_notebook_has_the_cells_of_the_page_its_set_up_and_its_exercise(tmp_path):
    for number in ("08", "13"):
        path, target = LESSONS[number], tmp_path / f"{number}.ipynb"
        assert notebook.write(path, target, None) is None
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(target.read_text())["cells"]]
        shown = [(cell.kind, cell.shown) for cell in scripts.parse(path) if cell.shown]
        assert cells[0] == ("code", notebook.SETUP) and cells[1:1 + len(shown)] == shown
        assert [kind for kind, _ in cells[1 + len(shown):]] == (["markdown", "code", "code"] if number == "08" else [])
        for kind, source in cells:
            assert kind == "markdown" or compile(source, "cell", "exec")


def test_a_changed_notebook_is_kept_and_an_unchanged_one_is_not(tmp_path):
    target, kept = tmp_path / "lesson.ipynb", []
    notebook.write(LESSONS["08"], target, kept.append)
    run = json.loads(target.read_text())
    run["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello"]}]
    target.write_text(json.dumps(run))  # run, and not changed
    notebook.write(LESSONS["08"], target, kept.append)
    assert not kept
    run["cells"][2]["source"] = ["mine = 1"]
    for text in (json.dumps(run), "not a notebook"):
        target.write_text(text)
        notebook.write(LESSONS["08"], target, lambda path, text=text: kept.append(path.read_text() == text))
    assert kept == [True, True]


def in_cells(monkeypatch, *cells):
    """Make this a notebook in which these cells were run."""
    shell = types.SimpleNamespace(user_ns={"In": ["", *cells]})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def stub_of_08():
    return LESSONS["08"].with_name("ex08_parameter_counts.py").read_text(encoding="utf-8")


def test_an_exercise_is_checked_in_its_notebook(monkeypatch, capsys):
    cells = ["def lora_count(d, k, r):\n    return r * (d + k)"]  # the lesson's, before the exercise
    in_cells(monkeypatch, *cells)
    in_notebook.check("08")
    assert "Nothing to check yet" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no exercise 13; there are 01, "):
        in_notebook.check("13")
    cells += [stub_of_08()]
    in_cells(monkeypatch, *cells)
    in_notebook.check("08")
    assert "not started, 0 of" in capsys.readouterr().out
    cells += ["def both(d, k):\n    return d + k", "def lora_count(d, k, r):\n    return r * both(d, k)\nprint(undefined)"]
    in_cells(monkeypatch, *cells)
    in_notebook.check("08")
    out = capsys.readouterr().out
    assert "lora_count    right" in out and "break_even    not started" in out and 'hint("08")' in out


def test_a_cell_that_cannot_be_read_is_not_passed_over_for_an_older_one(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "FOLDER", tmp_path / ".progress")
    cells = [stub_of_08(), "def lora_count(d, k, r):\n    return r * (d + k)", "\ndef break_even(d, k:\n    return 1"]
    in_cells(monkeypatch, *cells)
    in_notebook.check("08")
    assert "syntax error: line 2, '(' was never closed" in capsys.readouterr().out
    in_notebook.hint("08")
    out = capsys.readouterr().out
    assert "your cell cannot be read as Python" in out and "break_even, hint 1 of 4" in out
    in_cells(monkeypatch, *cells, "def break_even(d, k):\n    return 1", "this is no Python")
    in_notebook.check("08")
    assert "lora_count    right" in capsys.readouterr().out


def test_lines_are_those_of_the_cell_and_commands_those_of_the_notebook(monkeypatch, capsys):
    in_cells(monkeypatch, stub_of_08(), "\n\n\n\ndef lora_count(d, k, r):\n    return nothing")
    in_notebook.check("08", verbose=True)
    out = capsys.readouterr().out
    assert out.count("line 6 (return nothing)") and 'File "your cell", line 6' in out
    in_cells(monkeypatch, stub_of_08(), "def lora_count(d, k, r):\n    while True: pass")
    in_notebook.check("8", timeout=1)
    out = capsys.readouterr().out
    assert 'line 2 (while True: pass)' in out and 'check("08", timeout=60)' in out and 'hint("08")' in out


def test_the_notebook_s_hint_takes_a_name(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "FOLDER", tmp_path / ".progress")
    in_cells(monkeypatch, stub_of_08())
    in_notebook.hint("08", "largest_rank")
    assert "largest_rank, hint 1 of 4" in capsys.readouterr().out


def test_the_set_up_cell_finds_the_project_or_says_what_to_do(tmp_path):
    def set_up(folder, options):
        return subprocess.run([sys.executable, options, "-c", notebook.SETUP], capture_output=True, text=True, cwd=folder)

    assert set_up(LESSONS["08"].parent, "-I").stdout == f"the project: {scripts.LESSONS.parent}\n"
    assert "Open this notebook in the folder of its lesson" in set_up(tmp_path, "-IS").stderr


def test_a_notebook_elsewhere_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    with pytest.raises(RuntimeError, match="elsewhere use"):
        in_notebook.check("08")


def test_mathematics_survives_code_hosts():
    text = "so $a_1 * b_1$ and `$HOME`\n\n$$\nx_{i} \\\\ y\n$$\n\n```\nprice $5$\n```"
    assert scripts.math_for_hosts(text) == (
        "so $`a_1 * b_1`$ and `$HOME`\n\n```math\nx_{i} \\\\ y\n```\n\n```\nprice $5$\n```")


@pytest.mark.parametrize(("source", "words"), [
    ("x = 1\n", "expected a cell"),
    ("# %% [markdown]\n# fine\nnot a comment\n", "a prose line starts with '# '"),
])
def test_script_errors_name_the_line(tmp_path, source, words):
    path = tmp_path / "99_wrong.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=words):
        scripts.parse(path)


def test_figures_are_the_same_bytes_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "made")
    images = []
    for _ in range(2):
        fig, ax = figures.new("a title")
        ax.plot([1, 2], [3, 4])
        figures.save(fig, "x", alt="a line")
        images.append((tmp_path / "made" / "x.png").read_bytes())
    assert images[0] == images[1]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["x.png"]


def test_a_reader_who_has_gone_is_no_failed_lesson(monkeypatch, capsys):
    def execute(path):
        raise BrokenPipeError
    monkeypatch.setattr(scripts, "execute", execute)
    with pytest.raises(BrokenPipeError):  # which ends the command without a word
        command.main(["08"])
    assert not capsys.readouterr().err


def test_text_that_cannot_be_read_is_no_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    for size, color, words in ((6, "#222222", "px high"), (16, "#e69f00", "a contrast of 2.25")):
        fig, ax = figures.new("a title")
        ax.text(0.5, 0.5, "some words", fontsize=size, color=color)
        with pytest.raises(ValueError, match=words):
            figures.save(fig, "x", alt="a line")
    assert not list(tmp_path.iterdir())


def test_a_figure_is_the_same_whatever_the_user_s_settings_are(tmp_path, monkeypatch):
    from lessons.course.pages.drawings import parameter_counts
    images = []
    for settings in ({}, {"text.color": "white", "axes.facecolor": "black", "savefig.facecolor": "black", "font.size": 4}):
        monkeypatch.setattr(figures, "FOLDER", tmp_path / str(len(images)))
        with matplotlib.rc_context(settings):
            images.append(parameter_counts.growth()._repr_png_())
    assert images[0] == images[1]


def test_colours_of_text_have_the_contrast_that_reading_needs():
    for color in (palette.FROZEN, palette.TRAINABLE, palette.FULL, palette.INK, *palette.OTHERS):
        assert palette.contrast(palette.for_text(color)) >= 4.5
    assert palette.for_text(palette.FULL) == palette.FULL
    assert round(palette.contrast("#000000"), 2) == 21


def test_a_reader_s_own_seeds_and_steps_are_what_the_comparison_of_lesson_13_says(tmp_path, monkeypatch):
    from lessons.course.pages.drawings import variants
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    titles = []
    monkeypatch.setattr(figures, "new", lambda title, new=figures.new, **options: titles.append(title) or new(title, **options))
    names, below, mixed = ("LoRA+", "PiSSA", "DoRA"), -np.arange(1.0, 9.0), np.array([-1.0, 1.0] * 4)
    for steps, ahead in ((400, [("PiSSA", 2)]), (150, [("PiSSA", 2), ("DoRA", 4)]), (90, [])):
        gap = {(name, r): below if (name, r) in ahead else mixed for name in names for r in (2, 4)}
        more = {name: below[:2] if (name, 4) in ahead else mixed[:2] for name in names}
        alt = variants.comparison(gap, more, steps).alt
        assert f"after {steps} steps" in alt and "LoRA+ in 4 of 8" in alt and "LoRA+ in 1 of 2" in alt
    variants.comparison({**gap, ("DoRA", 4): below}, more, 60)  # but not with the further seeds
    assert titles == ["At 400 steps only PiSSA at r = 2 beats LoRA with every seed",
                      "At 150 steps PiSSA at r = 2 and DoRA at r = 4 beat LoRA with every seed",
                      "At 90 steps no variant beats LoRA with every seed",
                      "At 60 steps no variant beats LoRA with every seed"]


def test_a_formula_stands_on_one_line():
    assert scripts.math_for_hosts("so $a$ and `$x` it is") == "so $`a`$ and `$x` it is"
    with pytest.raises(ValueError, match=r"over two lines.*so \$a"):
        scripts.math_for_hosts("so $a\n+ b$ it is")
