"""Python in colours: each token that deserves one in a <span> with a class that style.css knows."""

import builtins
import io
import keyword
import tokenize
from html import escape
from itertools import accumulate

KINDS = {tokenize.COMMENT: "comment", tokenize.NUMBER: "number", tokenize.STRING: "string"}


def highlight(code):
    """HTML of Python code. What cannot be read as Python, in an excerpt say, stays as it is."""
    lines = [0, *accumulate(len(line) + 1 for line in code.split("\n"))]  # where each begins
    out, at = [], 0
    for kind, (first, left), (last, right) in _tokens(code):
        start, end = lines[first - 1] + left, lines[last - 1] + right
        word = escape(code[start:end], quote=False)
        out += [escape(code[at:start], quote=False), f'<span class="{kind}">{word}</span>']
        at = end
    return "".join(out) + escape(code[at:], quote=False)


def _tokens(code):
    """(class, start, end) of each token that is coloured. A formatted string is one, as it was before Python 3.12."""
    opened, before = [], ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            name = tokenize.tok_name[token.type]
            if name.endswith("STRING_START"):
                opened.append(token.start)
            elif name.endswith("STRING_END"):
                start = opened.pop()
                if not opened:
                    yield "string", start, token.end
            elif not opened:
                kind = KINDS.get(token.type) or (name == "NAME" and _name(token.string, before))
                if kind:
                    yield kind, token.start, token.end
            before = token.string
    except (tokenize.TokenError, IndentationError):  # an excerpt that ends in the middle
        return


def _name(word, before):
    if keyword.iskeyword(word):
        return "keyword"
    if before in ("def", "class"):
        return "defined"
    return "builtin" if hasattr(builtins, word) and before != "." else ""
