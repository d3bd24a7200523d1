"""The Markdown that the pages use, into blocks and from blocks into HTML; anything else raises, naming the line.

Headings, paragraphs, lists of one level, tables, fences of code and of mathematics, images and comments on lines of
their own; in a line mathematics, code, links, bold and italic.
"""

import re
from dataclasses import dataclass
from html import escape

from .mathml import mathml

INLINE = re.compile(r"""\$`(?P<math>[^`]+)`\$ | `(?P<code>[^`]+)`
                      | \[(?P<label>[^\[\]]*)\]\((?P<target>[^)\s]+)\)
                      | \*\*(?P<bold>.+?)\*\* | \*(?P<italic>[^*\s](?:[^*]*[^*\s])?)\*""", re.X | re.S)
UNKNOWN = re.compile(r"> |\d+\. |<|[-*_]{3,}$|!\[|\+ |\* ")  # what else Markdown knows at the start of a line


@dataclass
class Block:
    """kind: heading, paragraph, list, table, code, math, image or comment. info: level, language or alt text."""

    kind: str
    text: str
    line: int
    info: str = ""


def blocks(text):
    """The blocks of a page, in order. Raises ValueError for what it does not know, "line 12: ..."."""
    found, lines, at = [], text.split("\n"), 0
    while at < len(lines):
        line, start = lines[at], at + 1
        at += 1
        if line.startswith("```"):
            end = next((i for i in range(at, len(lines)) if lines[i] == "```"), None)
            if end is None:
                raise ValueError(f"line {start}: a fence {line} that nothing closes")
            kind = "math" if line == "```math" else "code"
            found.append(Block(kind, "\n".join(lines[at:end]), start, line[3:]))
            at = end + 1
        elif image := re.fullmatch(r"!\[([^\]]+)\]\((\S+)\)", line):
            found.append(Block("image", image[2], start, image[1]))
        elif comment := re.fullmatch(r"<!-- (.+) -->", line):
            found.append(Block("comment", comment[1], start))
        elif heading := re.fullmatch(r"(#{1,3}) (.+)", line):
            found.append(Block("heading", heading[2], start, str(len(heading[1]))))
        elif line:
            while at < len(lines) and lines[at] and not re.match(r"```|#|!\[", lines[at]):
                line += "\n" + lines[at]
                at += 1
            kind = "list" if line.startswith("- ") else "table" if line.startswith("|") else "paragraph"
            if kind == "paragraph" and UNKNOWN.match(line):
                raise ValueError(f"line {start}: the book does not know this Markdown: {line.split(chr(10))[0]}")
            found.append(Block(kind, line, start))
    return found


def inline(text, link=lambda target: target, words=escape):
    """Prose as HTML. link: target -> what href says. words: what to make of the text between the marks."""
    out, at = [], 0
    for found in INLINE.finditer(text):
        out.append(words(_curly(text[at:found.start()], text[at - 1:at])))
        at = found.end()
        kind = found.lastgroup
        inside = found["label" if kind == "target" else kind]
        if kind == "math":
            out.append(mathml(inside))
        elif kind == "code":
            out.append(f"<code>{escape(inside, quote=False)}</code>")
        else:
            tag, attributes = {"bold": ("strong", ""), "italic": ("em", "")}.get(kind) or (
                "a", f' href="{escape(link(found["target"]))}"')
            # No link in a link: words may make links of their own.
            out.append(f"<{tag}{attributes}>{inline(inside, link, escape if kind == 'target' else words)}</{tag}>")
    return "".join(out) + words(_curly(text[at:], text[at - 1:at] if at else ""))


def items(text):
    """The items of a list block."""
    return [re.sub(r"\n +", "\n", item) for item in re.split(r"\n- ", text[2:])]


def rows(text):
    """The cells of a table block: the head, then each row."""
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in text.split("\n")]
    return [lines[0], *lines[2:]]


def _curly(text, before):
    """Straight quotation marks as print has them. before: the character in front of the text, or nothing."""
    text = re.sub(r'(?<![^\s(])"', "“", before + text)[len(before):]
    return text.replace('"', "”").replace("'", "’")
