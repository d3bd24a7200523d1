"""A lesson is a percent script; this reads one into cells, runs it, and turns it into a page.

    # %% [markdown]         a prose cell: every line starts with "# "
    # %%                    a code cell
    assert loss < 1.4       a finding: it stands on the page
    assert loss < 1.4  # page      guards a sentence of the page: it runs, and is shown nowhere

Mathematics is written $...$, or $$ alone on the lines before and after. On a page it becomes $`...`$
and ```math, the forms that code hosts leave alone: in plain $...$ they take _ and * for emphasis.
"""

import ast
import contextlib
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

from .. import LESSONS


@dataclass
class Cell:
    kind: str  # "markdown" or "code"
    text: str
    line: int  # of its first line in the script

    @property
    def shown(self):
        """What page, book and notebook hold of it: no statement marked # page; "" where there is no other."""
        if self.kind == "markdown":
            return self.text
        guards, kept = guard_lines(self.text), []
        for i, line in enumerate(self.text.split("\n")):
            gap = not line and i - 1 in guards and not any(kept[-1:])  # an empty line before the guard, and one after
            if i not in guards and not gap:
                kept.append(line)
        return "\n".join(kept).strip("\n")

    @property
    def unguarded(self):
        """The same to be run: with an empty line where a guard was, so that line numbers stay."""
        guards = guard_lines(self.text)
        return "\n".join("" if i in guards else line for i, line in enumerate(self.text.split("\n")))


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


def guard_lines(code):
    """The lines, counted from 0, of the statements marked # page: a simple one on any line, a block on its first."""
    marked = {token.start[0] for token in tokenize.generate_tokens(io.StringIO(code).readline)
              if token.type == tokenize.COMMENT and re.match(r"# page(:|$)", token.string)}
    guards = set()
    for statement in (s for s in ast.walk(ast.parse(code)) if isinstance(s, ast.stmt)) if marked else ():
        last = statement.lineno if hasattr(statement, "body") else statement.end_lineno
        if marked & {*range(statement.lineno, last + 1)}:
            guards |= {*range(statement.lineno - 1, statement.end_lineno)}
    return guards


def execute(path, after=None, guards=True):
    """Run a lesson's cells in one namespace; calls after(cell, printed, figures) for each, if given.

    guards: run what is marked # page, too.
    """
    from . import figures  # Matplotlib: only where a lesson runs
    namespace = {"__name__": "__main__", "__file__": str(path)}
    for cell in parse(path):
        printed = io.StringIO()
        figures.saved.clear()
        if cell.kind == "code":
            # Newlines in front make the line numbers of a traceback those of the script.
            code = compile("\n" * (cell.line - 1) + (cell.text if guards else cell.unguarded), str(path), "exec")
            with contextlib.redirect_stdout(printed) if after else contextlib.nullcontext():
                exec(code, namespace)
        if after:
            after(cell, printed.getvalue(), list(figures.saved))


def math_for_hosts(text):
    """Prose with $...$ and $$ blocks in the form that code hosts leave alone."""
    text = re.sub(r"^\$\$\n(.*?)\n\$\$$", r"```math\n\1\n```", text, flags=re.S | re.M)
    parts = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.S)  # code stays as it is
    parts[::2] = [re.sub(r"\$([^$\n]+)\$", r"$`\1`$", part) for part in parts[::2]]
    if stray := re.search(r"^.*(?<!`)\$(?!`).*$", "".join(parts[::2]), re.M):
        raise ValueError(f"a formula that goes over two lines, or a $ without another: {stray[0]}")
    return "".join(parts)


def page_blocks(cell):
    """What a page holds of a cell's source, the same whether or not the cell was run; "" for a mere guard."""
    if cell.kind == "markdown":
        return math_for_hosts(cell.text)
    return f"```python\n{cell.shown}\n```" if cell.shown else ""


def links(path):
    """The line at the top and the foot of a page: the lesson before, the map of the course, the next lesson."""
    order = list(lessons().values())
    at = order.index(path) if path in order else len(order)

    def link(words, lesson):
        return f"[{words.format(title(lesson).split(':')[0])}](../{lesson.parent.name}/README.md)"

    return " · ".join([*(link("← {}", lesson) for lesson in order[at - 1:at] if path in order),
                       "[The course](../README.md)",
                       *(link("{} →", lesson) for lesson in order[at + 1:at + 2])])


def render(path):
    """The page of a lesson: prose, code, what the code printed, and the figures it drew."""
    blocks = [f"<!-- Made from {path.name} by: python -m lessons render {path.parent.name[:2]} -->", links(path)]

    def after(cell, printed, drawn):
        blocks.append(page_blocks(cell))
        printed = "".join(line for line in printed.splitlines(True) if not line.startswith("figure: "))
        if printed.strip():
            blocks.append(f"```text\n{printed.rstrip()}\n```")
        blocks.extend(f"![{figure.alt}](../../figures/{figure.path.name})" for figure in drawn)

    execute(path, after)
    return "\n\n".join([*filter(None, blocks), links(path)]) + "\n"


def relink():
    """Bring the links at the top and the foot of every page up to date: a lesson may have come or gone."""
    for path in lessons().values():
        page = path.with_name("README.md")
        if page.exists():
            old = page.read_text(encoding="utf-8")
            new = re.sub(r"^.*\[The course\]\(\.\./README\.md\).*$", lambda _, path=path: links(path), old, flags=re.M)
            if new != old:
                page.write_text(new, encoding="utf-8", newline="\n")


def drift(path):
    """The first piece of a lesson's page that is not there as its source has it, in order; or None."""
    return _missing(path, [links(path), *map(page_blocks, parse(path)), links(path)])


def changed(path):
    """Whether a reader has changed a lesson since its page was made."""
    return _missing(path, map(page_blocks, parse(path))) is not None


def _missing(path, blocks):
    page = path.with_name("README.md")
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    at = 0
    for block in filter(None, blocks):
        found = text.find("\n\n" + block + "\n", at)
        if found < 0:
            return block
        at = found + len(block)
    return None
