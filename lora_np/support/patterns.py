"""Patterns as the tokenizers library writes them, for Python's re, which has no Unicode categories such as \\p{L}."""

import re
import unicodedata
from functools import lru_cache

SETS = {"s": "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",  # Python's own has U+001C to 1F, too
        "S": "\0-\x08\x0e-\x1f!-\x84\x86-\x9f\xa1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e"
             "\u2060-\u2fff\u3001-\U0010ffff"}
CATEGORIES = {"d": ("Nd",), "w": ("L", "M", "Nd", "Pc")}
PASSED_ON = "nrtfvaxu"  # escapes of one character, the same in both
ELEMENT = re.compile(r"\\[pP]\{\^?\w+\}|\\.|\(\?|&&|.", re.DOTALL)


@lru_cache(32)
def compile_pattern(pattern):
    """The pattern for re, in one group, so that split(text) gives what lies between matches and the matches in turn.

    Raises ValueError for what Python's re cannot say.
    """
    if re.search(r"\(\?-?(?!i[:)])[a-z]", pattern):
        raise ValueError(f"pattern {pattern!r}: of the options only (?i:...) is supported")
    translated, inside = ["("], False  # inside a set, [...]
    for element in ELEMENT.findall(pattern):
        if element[0] == "\\" and element[1:2].isalnum() and element[1] not in PASSED_ON:
            characters = _characters(element, pattern)
            translated.append(characters if inside else f"[{characters}]")
        elif inside:
            if element in ("[", "&&"):
                raise ValueError(f"pattern {pattern!r}: a set within a set is not supported")
            inside = element != "]"
            translated.append("\\" * (element in ("&", "~", "|")) + element)  # doubled they are kept for re's future
        else:
            inside = element == "["
            translated.append("(?:" if element == "(" else element)  # no group but the whole
    try:
        return re.compile("".join([*translated, ")"]), re.MULTILINE)  # there ^ and $ always speak of a line
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: Python's re cannot read it: {error}") from None


def _characters(element, pattern):
    """The characters of \\p{L}, \\s and their like, as the inside of a set."""
    letter = element[1]
    if letter in SETS:
        return SETS[letter]
    prefixes = (element[3:-1].lstrip("^"),) if letter in "pP" else CATEGORIES.get(letter.lower(), ())
    codes, names = _categories()
    chosen = "".join(code for name, code in names.items() if prefixes and name.startswith(prefixes))
    if not chosen:
        raise ValueError(f"pattern {pattern!r}: {element} is not supported")
    outside = letter.isupper() != ("^" in element)
    runs = re.finditer(f"[{'^' * outside}{chosen}]+", codes)
    return "".join(f"\\U{run.start():08x}-\\U{run.end() - 1:08x}" for run in runs)


@lru_cache(1)
def _categories():
    """(a text with one letter for the category of each character, {category: its letter}); takes 0.1 s."""
    categories = [unicodedata.category(chr(i)) for i in range(0x110000)]
    names = {name: chr(ord("A") + i) for i, name in enumerate(sorted(set(categories)))}
    return "".join([names[category] for category in categories]), names
