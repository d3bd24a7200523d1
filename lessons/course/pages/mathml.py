r"""LaTeX to MathML, which browsers set by themselves: exactly what the pages use, and an error for anything else.

    mathml(r"W_0 + \frac{\alpha}{r} B A")

A letter is an identifier, a row of digits a number; ^, _ and ' raise and lower; {...} groups; a command is one of those
below. What is not known raises ValueError, so that no formula is set half.
"""

import re
from html import escape

LETTERS = {"alpha": "α", "beta": "β", "Delta": "Δ", "varepsilon": "ε", "eta": "η", "theta": "θ", "kappa": "κ",
           "lambda": "λ", "rho": "ρ", "Sigma": "Σ", "sigma": "σ", "phi": "φ", "infty": "∞", "top": "⊤"}
OPERATORS = {"cdot": "⋅", "times": "×", "odot": "⊙", "pm": "±", "le": "≤", "ge": "≥", "leftarrow": "←", "sum": "∑"}
BARS = {"lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|"}
FUNCTIONS = ("cos", "sin", "log", "ln", "max", "min")
SPACES = {",": 1 / 6, "qquad": 2}  # em
LIMITS = ("∑", "max", "min")  # what stands below and above them in a display
TOKEN = re.compile(r"\\text\{[^{}]*\}|\\(?:[A-Za-z]+|.)|\d+(?:\.\d+)?|\s+|.", re.S)


def mathml(latex, display=False):
    """A formula as one or, in a display parted by \\qquad, several <math> elements; so a narrow page can stack them."""
    parts = re.split(r"\\qquad(?![A-Za-z])", latex) if display else [latex]
    kind = ' display="block"' if display else ""
    return "".join(f"<math{kind}>{_Formula(part).whole()}</math>" for part in parts)


class _Formula:
    """The tokens of a formula, and how far they are read."""

    def __init__(self, latex):
        self.latex = latex
        self.tokens = [token for token in TOKEN.findall(latex) if not token.isspace()]
        self.at = 0

    def whole(self):
        row = self.row()
        if self.at < len(self.tokens):
            raise self.error("a } without its {")
        return row

    def error(self, what):
        return ValueError(f"{what} in the formula {' '.join(self.latex.split())}")

    def next(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self):
        token = self.next()
        self.at += 1
        return token

    def row(self):
        """Everything up to a closing brace, in one element."""
        items = []
        while self.next() not in ("", "}"):
            items.append(self.scripted())
        return items[0] if len(items) == 1 else f"<mrow>{''.join(items)}</mrow>"

    def scripted(self):
        """An atom with what stands below and above it."""
        start = self.next()
        base, below, above = self.atom(), "", []
        while self.next() in ("_", "^", "'"):
            script = self.take()
            if script == "'":
                above.append("<mo>′</mo>")
            elif script == "^":
                above.append(self.argument())
            elif below:
                raise self.error("two subscripts")
            else:
                below = self.argument()
        if len(above) > 1:
            above = [f"<mrow>{''.join(above)}</mrow>"]
        over = start.lstrip("\\") in LIMITS or start == "\\sum"
        tag = {(True, True): "munderover" if over else "msubsup", (True, False): "munder" if over else "msub",
               (False, True): "mover" if over else "msup"}.get((bool(below), bool(above)))
        shown = f"<{tag}>{base}{below}{''.join(above)}</{tag}>" if tag else base
        spaced = start.lstrip("\\") in FUNCTIONS and self.next() not in ("(", "", "}")
        return shown + self.space(1 / 6) if spaced else shown

    def argument(self):
        """What a command or a script applies to: a group, or a single atom."""
        if self.next() in ("", "}"):
            raise self.error("something is missing at the end")
        return self.atom()

    def atom(self):
        token = self.take()
        if token == "{":
            row = self.row()
            if self.take() != "}":
                raise self.error("a { without its }")
            return row
        if token.startswith("\\text{"):
            return f"<mtext>{escape(token[6:-1]).replace(' ', '&nbsp;')}</mtext>"
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in "()[]":
            return f'<mo stretchy="false">{token}</mo>'
        if token in "+-=<>,.:/":
            return f"<mo>{escape(token.replace('-', '−'))}</mo>"
        raise self.error(f"{token!r} is not known")

    def command(self, name):
        if name in LETTERS:
            upright = ' mathvariant="normal"' if LETTERS[name] in "ΔΣ∞⊤" else ""
            return f"<mi{upright}>{LETTERS[name]}</mi>"
        if name in OPERATORS:
            return f"<mo>{OPERATORS[name]}</mo>"
        if name in BARS:
            return f'<mo stretchy="false" form="{"prefix" if name[0] == "l" else "postfix"}">{BARS[name]}</mo>'
        if name in ("max", "min"):
            return f'<mo movablelimits="true">{name}</mo>'
        if name in FUNCTIONS:
            return f"<mi>{name}</mi>"
        if name in SPACES:
            return self.space(SPACES[name])
        if name == "dots":
            return "<mo>…</mo>"
        if name == "frac":
            return f"<mfrac>{self.argument()}{self.argument()}</mfrac>"
        if name == "sqrt":
            return f"<msqrt>{self.argument()}</msqrt>"
        if name == "hat":
            return f'<mover accent="true">{self.argument()}<mo stretchy="false">^</mo></mover>'
        raise self.error(f"the command \\{name} is not known")

    @staticmethod
    def space(em):
        return f'<mspace width="{em:.3g}em"/>'
