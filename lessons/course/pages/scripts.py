"""A lesson is a percent script; this reads one into cells, runs it, and turns it into a page or a notebook.

    # %% [markdown]         a prose cell: every line starts with "# "
    # %%                    a code cell

Mathematics is written $...$, or $$ alone on the lines before and after. On a page it becomes $`...`$
and ```math, the forms that code hosts leave alone: in plain $...$ they take _ and * for emphasis.
"""

import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

LESSONS = Path(__file__).resolve().parents[2]


@dataclass
class Cell:
    kind: str  # "markdown" or "code"
    text: str
    line: int  # of its first line in the script


def lessons():
    """{"08": path} for each lesson, in order."""
    return {path.parent.name[:2]: path for path in sorted(LESSONS.glob("[0-9][0-9]_*/lesson.py"))}


def title(path):
    """A lesson's own title: its first heading."""
    return parse(path)[0].text.split("\n")[0].lstrip("# ")


def parse(path):
    """The cells of a script. Raises ValueError for prose outside a comment or code before the first cell."""
    cells, lines = [], Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("# %%"):
            cells.append(Cell("markdown" if "[markdown]" in line else "code", "", number + 1))
        elif not cells:
            if line.strip():
                raise ValueError(f"{path}:{number}: expected a cell (# %% or # %% [markdown]) before {line!r}")
        elif cells[-1].kind == "code":
            cells[-1].text += line + "\n"
        elif line == "#" or line.startswith("# ") or not line:
            cells[-1].text += line[2:] + "\n"
        else:
            raise ValueError(f"{path}:{number}: a prose line starts with '# ', got {line!r}")
    for cell in cells:
        cell.text = cell.text.strip("\n")
    return [cell for cell in cells if cell.text]


def execute(path, after=None):
    """Run a lesson's cells in one namespace; calls after(cell, printed, figures) for each, if given."""
    from . import figures  # Matplotlib: only where a lesson runs
    namespace = {"__name__": "__main__", "__file__": str(path)}
    for cell in parse(path):
        printed = io.StringIO()
        figures.saved.clear()
        if cell.kind == "code":
            # Newlines in front make the line numbers of a traceback those of the script.
            code = compile("\n" * (cell.line - 1) + cell.text, str(path), "exec")
            with contextlib.redirect_stdout(printed) if after else contextlib.nullcontext():
                exec(code, namespace)
        if after:
            after(cell, printed.getvalue(), list(figures.saved))


def math_for_hosts(text):
    """Prose with $...$ and $$ blocks in the form that code hosts leave alone."""
    text = re.sub(r"^\$\$\n(.*?)\n\$\$$", r"```math\n\1\n```", text, flags=re.S | re.M)
    parts = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.S)  # code stays as it is
    return "".join(part if i % 2 else re.sub(r"\$([^$\n]+)\$", r"$`\1`$", part) for i, part in enumerate(parts))


def page_blocks(cell):
    """What a page holds of a cell's source: the same whether or not the cell was run."""
    return math_for_hosts(cell.text) if cell.kind == "markdown" else f"```python\n{cell.text}\n```"


def render(path):
    """The page of a lesson: prose, code, what the code printed, and the figures it drew."""
    blocks = [f"<!-- Made from {path.name} by: python -m lessons render {path.parent.name[:2]} -->"]

    def after(cell, printed, drawn):
        blocks.append(page_blocks(cell))
        printed = "".join(line for line in printed.splitlines(True) if not line.startswith("figure: "))
        if printed.strip():
            blocks.append(f"```text\n{printed.rstrip()}\n```")
        blocks.extend(f"![{alt}](../../figures/{name})" for name, alt in drawn)

    execute(path, after)
    return "\n\n".join(blocks) + "\n"


def drift(path):
    """The first piece of a lesson's source that its page does not hold in order, or None."""
    page = path.with_name("README.md")
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    at = 0
    for cell in parse(path):
        block = page_blocks(cell)
        found = text.find("\n\n" + block + "\n", at)
        if found < 0:
            return block
        at = found + len(block)
    return None


def notebook(path):
    """A lesson as a Jupyter notebook, format 4.5, as JSON text."""
    cells = []
    for i, cell in enumerate(parse(path)):
        text = cell.text
        for name in re.findall(r'figures\.save\(\w+, "(\w+)"', text):
            text += f'\n\nfrom IPython.display import Image\nImage(figures.FOLDER / "{name}.png")'
        cells.append({"cell_type": cell.kind, "id": f"cell-{i}", "metadata": {}, "source": text.splitlines(True)}
                     | ({"outputs": [], "execution_count": None} if cell.kind == "code" else {}))
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5,
                       "metadata": {"language_info": {"name": "python"}}}, indent=1, ensure_ascii=False) + "\n"
