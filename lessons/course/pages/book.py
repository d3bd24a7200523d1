"""lessons/book.html: the whole course in one file that any browser opens, from the pages and figures that are there.

It needs no network, and scripts only for the search and for the two parts that compute (live.js).
"""

import base64
import os
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .. import LESSONS
from . import markdown, scripts
from .highlight import highlight
from .mathml import mathml

HERE = Path(__file__).resolve().parent
BOOK = LESSONS / "book.html"
MAP, PRACTICE = LESSONS / "README.md", LESSONS / "practice.md"
LINKS = re.compile(r"^.*\[The course\]\(\.\./README\.md\).*\n", re.M)  # the book has its own
DRAWS = re.compile(r"\bdraw\.|\bfigures\.save\(")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>LoRA from scratch</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<nav id="contents" aria-label="Contents">
<p class="title"><a href="#top">LoRA from scratch</a></p>
<p class="search" hidden><input type="search" placeholder="Search" aria-label="Search the book"></p>
<ol id="found" hidden></ol>
<ol id="chapters">
{contents}
</ol>
</nav>
<a class="to-contents" href="#contents">Contents</a>
<main id="top">
{chapters}
</main>
<script>
{script}</script>
</body>
</html>
"""


@dataclass
class Chapter:
    """A page of the book. id: its anchor, the name of its folder; sections: [(anchor, HTML of the heading)]."""

    id: str
    path: Path
    number: str = ""
    title: str = ""
    body: str = ""
    sections: list = None


def write(path=BOOK):
    """Write the book. Raises ValueError, naming page and line, for what it cannot set."""
    chapters = _chapters()
    for chapter in chapters:
        _fill(chapter, {c.path: c.id for c in chapters})
    parts = {name: (HERE / name).read_text(encoding="utf-8") for name in ("style.css", "book.js", "live.js")}
    path.write_text(PAGE.format(style=parts["style.css"], script=parts["book.js"] + parts["live.js"],
                                contents="\n".join(map(_entry, chapters)),
                                chapters="\n".join(_article(chapters, i) for i in range(len(chapters)))),
                    encoding="utf-8", newline="\n")
    return path


def _chapters():
    """The map, every lesson that has a page, and what practice adds."""
    pages = [path.with_name("README.md") for path in scripts.lessons().values()]
    lessons = [Chapter(page.parent.name, page, page.parent.name[:2]) for page in pages if page.exists()]
    return [Chapter("course", MAP), *lessons, *([Chapter("practice", PRACTICE)] if PRACTICE.exists() else [])]


def _fill(chapter, ids):
    """Read a chapter's page and set it. ids: {page: anchor} of every chapter."""
    text = LINKS.sub("\n", chapter.path.read_text(encoding="utf-8"))
    setter = _Setter(chapter, ids)
    try:
        chapter.title, chapter.body = setter.title(text), setter.body(markdown.blocks(text))
    except ValueError as error:
        line = f", line {setter.line}" if setter.line else ""
        raise ValueError(f"{chapter.path.relative_to(LESSONS.parent).as_posix()}{line}: {error}") from None
    chapter.sections = setter.sections


class _Setter:
    """Sets the blocks of a chapter as HTML; line is where it is."""

    def __init__(self, chapter, ids):
        self.chapter, self.ids, self.sections, self.line = chapter, ids, [], 0

    def title(self, text):
        return self.inline(re.sub(r"^\d\d\. ", "", re.search(r"^# (.+)$", text, re.M)[1]))

    def body(self, blocks):
        out, blocks = [], [b for b in blocks if not (b.kind == "heading" and b.info == "1")]
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            self.line = block.line
            drawing = after and after.kind == "image" and block.info == "python" and DRAWS.search(block.text)
            out.append(self.folded(block) if drawing else getattr(self, block.kind)(block))
            if len(out) > 1 and "<details" in out[-2]:  # the figure first, then what drew it
                out[-2:] = reversed(out[-2:])
        self.line = 0
        return "\n".join(filter(None, out))

    def inline(self, text):
        return markdown.inline(text, self.link, self.words)

    def words(self, text):
        """Text with every "lesson 09" a link to it."""
        return re.sub(r"\b([Ll]esson (\d\d))\b", lambda m: self.reference(m[1], m[2]), escape(text, quote=False))

    def reference(self, words, number):
        anchor = next((a for a in self.ids.values() if a.startswith(f"{number}_") and a != self.chapter.id), None)
        return f'<a href="#{anchor}">{words}</a>' if anchor else words

    def link(self, target):
        """Where a link of a page leads in the book: to a chapter, to a file beside the book, or out."""
        if "://" in target or target.startswith("#"):
            return target
        path = Path(os.path.normpath(self.chapter.path.parent / target.partition("#")[0]))
        page = path / "README.md" if path.is_dir() else path
        return f"#{self.ids[page]}" if page in self.ids else Path(os.path.relpath(path, LESSONS)).as_posix()

    def heading(self, block):
        if block.info == "2":
            name = re.sub(r"[^a-z0-9]+", "-", re.sub(r"[$`*]", "", block.text).lower()).strip("-")
            anchor, html = f"{self.chapter.id}--{name}", self.inline(block.text)
            self.sections.append((anchor, html))
            return f'<h2 id="{anchor}">{html} <a class="anchor" href="#{anchor}" aria-label="Link to here">#</a></h2>'
        return f"<h3>{self.inline(block.text)}</h3>"

    def paragraph(self, block):
        return f"<p>{self.inline(block.text)}</p>"

    def list(self, block):
        return "<ul>" + "".join(f"<li>{self.inline(item)}</li>" for item in markdown.items(block.text)) + "</ul>"

    def table(self, block):
        head, *rows = ([self.inline(cell) for cell in row] for row in markdown.rows(block.text))
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return ('<div class="table"><table><thead><tr>' + "".join(f"<th>{cell}</th>" for cell in head)
                + f"</tr></thead><tbody>{body}</tbody></table></div>")

    def math(self, block):
        return f'<div class="display">{mathml(block.text, display=True)}</div>'

    def code(self, block):
        kind = {"python": "cell", "py": "excerpt", "text": "output"}.get(block.info, "command")
        html = highlight(block.text) if block.info in ("python", "py") else escape(block.text, quote=False)
        return f'<pre class="{kind}" tabindex="0"><code>{html}</code></pre>'

    def folded(self, block):
        return f"<details><summary>The code that draws this figure</summary>{self.code(block)}</details>"

    def image(self, block):
        data = base64.b64encode((self.chapter.path.parent / block.text).read_bytes()).decode()
        return f'<figure><img alt="{escape(block.info)}" src="data:image/png;base64,{data}"></figure>'

    def comment(self, block):
        name = re.fullmatch(r"live: (\w+)", block.text)
        return f'<section class="live" id="live-{name[1]}" hidden></section>' if name else ""


def _entry(chapter):
    """A chapter in the contents, with its sections."""
    sections = "".join(f'<li><a href="#{anchor}">{_unlinked(html)}</a></li>' for anchor, html in chapter.sections)
    return (f'<li><a href="#{chapter.id}"><span class="number">{chapter.number}</span> {_unlinked(chapter.title)}</a>'
            + (f"<ol>{sections}</ol>" if sections else "") + "</li>")


def _unlinked(html):
    return re.sub(r"</?a\b[^>]*>", "", html)


def _article(chapters, i):
    """A chapter with links to those before and after it."""
    chapter = chapters[i]
    around = "".join(f'<a rel="{rel}" href="#{c.id}">{arrow.format(c.number + " " + _unlinked(c.title))}</a>'
                     for rel, arrow, c in (("prev", "← {}", chapters[i - 1] if i else None),
                                           ("next", "{} →", next(iter(chapters[i + 1:]), None))) if c)
    number = f'<span class="number">{chapter.number}</span> ' if chapter.number else ""
    title = re.sub(r"^([^:<]+): (.+)$", r"\1 <small>\2</small>", chapter.title)
    return (f'<article id="{chapter.id}">\n<h1>{number}{title}</h1>\n{chapter.body}\n'
            f'<p class="around">{around}</p>\n</article>')
