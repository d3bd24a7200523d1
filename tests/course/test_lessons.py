"""The course's pages and figures agree with its scripts; the scripts themselves run under `python -m lessons`."""

import ast
import json
import re

import pytest

from lessons import __main__ as command
from lessons.course.pages import figures, scripts

LESSONS = scripts.lessons()
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


@every_lesson
def test_page_shows_each_figure_with_alt_text(path):
    drawn = re.findall(r'figures\.save\(\w+, "(\w+)"', path.read_text(encoding="utf-8"))
    page = path.with_name("README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[([^\]]+)\]\(\.\./\.\./figures/(\w+)\.png\)", page)
    assert [name for _, name in shown] == drawn and drawn
    assert all(len(alt) > 40 for alt, _ in shown)
    assert all(name.startswith(path.parent.name[:2]) for name in drawn)


def test_figures_folder_holds_exactly_what_the_lessons_draw():
    drawn = {name for path in LESSONS.values()
             for name in re.findall(r'figures\.save\(\w+, "(\w+)"', path.read_text(encoding="utf-8"))}
    found = {path.stem: path.stat().st_size for path in figures.FOLDER.iterdir()}
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


def test_notebook_has_the_cells_of_the_script():
    path = LESSONS["08"]
    cells = json.loads(scripts.notebook(path))["cells"]
    assert [cell["cell_type"] for cell in cells] == [cell.kind for cell in scripts.parse(path)]
    for cell, source in zip(cells, scripts.parse(path), strict=True):
        assert "".join(cell["source"]).startswith(source.text)
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")


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
