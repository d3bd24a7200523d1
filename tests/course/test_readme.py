"""The README agrees with the tree: its table of files, its excerpts, and what its commands print.

python -m tests.course.test_readme counts the lines of its table again.
"""

import ast
import contextlib
import io
import re

import pytest

import lora_np
from lessons.course.checking.tasks import LESSONS
from lora_np import ops
from lora_np.byhand import __main__ as byhand
from tests.__main__ import QUICK

ROOT = LESSONS.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
ROW = re.compile(r"^(\|.*\]\(lora_np/\S+ \| )([\d,]+)( \|.*)$", re.M)  # of the table: files, lines, what they hold


def lines_of(path):
    """How many lines of Python a file holds, or a folder."""
    files = path.rglob("*.py") if path.is_dir() else [path]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def counted(text):
    """The README with the line counts of the tree."""
    return ROW.sub(lambda m: f"{m[1]}{sum(lines_of(ROOT / path) for path in paths(m)):,}{m[3]}", text)


def paths(row):
    """The files that a row of the table lists."""
    return re.findall(r"\]\((lora_np/[^)]+)\)", row[1])


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


def test_the_table_lists_each_file_of_lora_np_once_with_its_lines():
    listed = [path for row in ROW.finditer(TEXT) for path in paths(row)]
    there = {f"lora_np/{p.name}" for p in (ROOT / "lora_np").iterdir() if p.suffix == ".py" or any(p.glob("*.py"))}
    assert sorted(listed) == sorted(there - {"lora_np/__init__.py"})
    wrong = [line for line, right in zip(TEXT.splitlines(), counted(TEXT).splitlines(), strict=True) if line != right]
    assert not wrong, "count them again: python -m tests.course.test_readme"


def test_what_is_to_be_read_rests_on_what_stands_before_it():
    order = [re.sub(r"lora_np/|\.py", "", path) for row in ROW.finditer(TEXT) if re.match(r"\| \d", row[1])
             for path in paths(row)]
    assert order[:3] == ["graph", "tensor", "ops"] and "lora" in order and len(order) >= 10
    later = set()
    for name in reversed(order):
        later.add(name)
        path = ROOT / "lora_np" / name
        for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(found, ast.ImportFrom) and found.level == 1 + path.is_dir():
                    names = [found.module.split(".")[0]] if found.module else [n.name for n in found.names]
                    assert not later.difference([name]).intersection(names), f"{file.name} imports what comes after it"


def test_the_first_code_is_the_one_page():
    page = (LESSONS / "one_page.py").read_text(encoding="utf-8")
    first, second, *_ = blocks("python")
    assert TEXT.index("```python") < TEXT.index("```bash")
    assert "W0 @ x" in first and first in page and second in page
    assert f"{len(page.splitlines())} lines of NumPy" in TEXT


def test_its_first_commands_stand_alone_as_the_gate_wants_them():
    commands = [block for block in blocks("bash") if block.startswith("python3 ")]
    assert len(commands) == 2 and all(block.count("\n") == 1 for block in commands)
    assert commands[0].endswith("-m lessons\n") and commands[1].endswith("-m tests\n")


def test_the_gate_runs_what_the_quick_tests_leave_out():
    gate = re.findall(r'pytest -m "?([a-z ]+)', (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert {mark for words in gate for mark in words.strip().split(" or ")} == {*re.findall(r"not (\w+)", QUICK)}


def test_its_commands_for_powershell_work_in_5_1():
    commands = blocks("powershell")
    assert commands
    for text in commands:
        assert not re.search(r"&&|\|\||python3|\.venv/|\\\n|^[A-Z_]+=|<<|'\\''", text, re.MULTILINE), text


def test_its_examples_by_hand_are_what_the_command_prints(capsys):
    sheet, answer, tape = blocks("text")
    byhand.main([])
    assert sheet in capsys.readouterr().out
    command, *expected = answer.splitlines(True)
    byhand.main(command.split("byhand ")[1].split())
    assert capsys.readouterr().out == "".join(expected)

    (code,) = [block for block in blocks("python") if "trace(" in block]
    exec(code, {})
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed[printed.index("Backward"):].splitlines()]
    assert all(line.split() in lines for line in tape.splitlines())


def test_its_gradcheck_says_what_the_comment_says():
    (code,) = [block for block in blocks("python") if "gradcheck" in block]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert re.findall(r"^([a-zA-Z]) .*?(ok|vacuous)", printed.getvalue(), re.M) == [
        ("x", "vacuous"), ("A", "vacuous"), ("B", "ok")]


def test_what_nobody_calls_is_named_with_its_reason():
    (named,) = re.findall(r"^Some of this is called by no model or lesson here\..*?^$", TEXT, re.M | re.S)
    called = "".join(path.read_text(encoding="utf-8") for folder in ("lora_np", "lessons")
                     for path in (ROOT / folder).rglob("*.py") if path.parent.name != "ops")
    unused = [f for f in ops.__all__ if f"ops.{f}(" not in called and f'operations["{f}"]' not in called]
    for file in (ROOT / "lora_np" / "extras").glob("*.py"):
        unused += [f.name for f in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(f, ast.FunctionDef)
                   and not f.name.startswith("_") and len(re.findall(rf"\b{f.name}\(", called)) == 1]
    assert [f for f in unused if f"`{f}`" not in named] == []


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.txt", ".ci/run"])
def test_tools_are_pinned_and_old_ones_refused(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for pattern in {"pyproject.toml": ["setuptools>=77", 'license = "MIT"', "numpy>=2.0", "matplotlib>=3.9",
                                       r'include = \["lora_np\*"\]', r'attr = "lora_np.__version__"'],
                    "requirements.txt": ["^-e .$", "^numpy>=2.0$", "^matplotlib>=3.9$", r"^pytest==\d+\.\d+\.\*$"],
                    ".ci/run": [r"ruff==\d+\.\d+\.\*"]}[name]:
        assert re.search(pattern, text, re.M), pattern
    assert f"version = {{{lora_np.__version__}}}" in TEXT


if __name__ == "__main__":
    README.write_text(counted(TEXT), encoding="utf-8", newline="\n")
