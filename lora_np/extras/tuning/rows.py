"""Rows of training data: each a text as ids, with a mark on those to be predicted; from a file of them to batches."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...support.checks import check_int, check_number
from ...support.notation import brief
from ...support.token_ids import check_tokenizer
from ...tokenizer import BPETokenizer, CharTokenizer
from .chatml import chat_ids

IGNORE = -100  # a target that cross_entropy leaves out
FORMS = {"prompt": ("prompt", "completion"), "text": ("text",), "messages": ("messages",)}


class Row(NamedTuple):
    """ids: integers (n,). target: bool (n,), True at ids that are to be predicted from those before them."""

    ids: np.ndarray
    target: np.ndarray


def to_row(record, tokenizer):
    """The Row of {"prompt", "completion"}, {"text"} or {"messages"}.

    To be predicted are: the completion and the end after it; the whole text and the end; what the assistant says and
    its end marks. Prompt and completion are encoded apart, since the prompt is all there is when one is generated. The
    end is tokenizer.eos_id, where there is one; what the tokenizer puts in front (BOS) comes exactly once.
    """
    form = form_of(record)
    if form == "messages":
        return _checked(Row(*chat_ids(record["messages"], tokenizer)), tokenizer)
    learned = tokenizer.encode(record[FORMS[form][-1]]).tolist()
    prompt = tokenizer.encode(record["prompt"]).tolist() if form == "prompt" else []
    if not learned or (form == "prompt" and not prompt):
        raise ValueError(f"the {'completion' if prompt else form} has no tokens")
    if tokenizer.eos_id not in (None, learned[-1]):
        learned.append(tokenizer.eos_id)
    ids, given = with_prefix(prompt + learned, tokenizer), len(with_prefix(prompt, tokenizer))
    return _checked(Row(np.array(ids), np.arange(len(ids)) >= given), tokenizer)


def with_prefix(ids, tokenizer):
    """Ids as a list that begins with what the tokenizer puts in front of a text, such as BOS, exactly once."""
    ids, prefix = [*map(int, ids)], [*tokenizer.prefix]
    return ids if ids[:len(prefix)] == prefix else prefix + ids


def to_rows(records, tokenizer, context, name="row"):
    """(rows, number left out) of {number: record}. Left out, never cut, are rows that are too long for a context.

    Of the ids of a row all but the last are put in, so as many as context + 1 have room. Raises ValueError that names
    the number of a record that is no row, and where none has room.
    """
    check_int("rows", context=context)
    if not isinstance(tokenizer, (CharTokenizer, BPETokenizer)):
        raise TypeError(f"rows: expected a CharTokenizer or a BPETokenizer, got {type(tokenizer).__name__}; "
                        "load_tokenizer(path) reads a model's own")
    if not records:
        raise ValueError("there are no rows")
    rows = []
    for number, record in records.items():
        try:
            rows.append(to_row(record, tokenizer))
        except ValueError as error:
            raise ValueError(f"{name} {number}: {error}") from None
    short = [row for row in rows if len(row.ids) <= context + 1]
    if not short:
        raise ValueError(f"none of {len(rows)} rows has room in a context of {context} tokens; the shortest takes "
                         f"{min(len(row.ids) for row in rows) - 1}")
    return short, len(rows) - len(short)


def text_rows(text, tokenizer, context, name="text"):
    """A long text as rows of up to context + 1 ids, each beginning with the last of the one before; all predicted."""
    check_int("rows", context=context)
    prefix = [*tokenizer.prefix]
    ids, step = with_prefix(tokenizer.encode(text), tokenizer)[len(prefix):], context - len(prefix)
    if step < 1 or len(ids) < 2:
        raise ValueError(f"{name}: {len(ids)} tokens are no row for a context of {context}; use a longer text or "
                         "context")
    rows = [prefix + ids[at:at + step + 1] for at in range(0, len(ids) - 1, step)]
    return [Row(np.array(row), np.arange(len(row)) > len(prefix)) for row in rows]


def split_rows(rows, fraction, seed=0):
    """(train, held out): up to this fraction of the rows, drawn by the seed, is held out.

    Identical rows stay on one side, so no row is held out that is trained on; with few rows none is held out.
    """
    check_number("split_rows", below=1, fraction=fraction)
    check_int("split_rows", least=0, seed=seed)
    same = {}
    for i, row in enumerate(rows):
        same.setdefault((row.ids.tobytes(), row.target.tobytes()), []).append(i)
    groups, wanted, held = [*same.values()], min(round(fraction * len(rows)), len(rows) - 1), set()
    for g in np.random.default_rng(seed).permutation(len(groups)):
        if len(held) + len(groups[g]) <= wanted:
            held.update(groups[g])
    return [row for i, row in enumerate(rows) if i not in held], [rows[i] for i in sorted(held)]


def pad(rows):
    """(x, y), each (B, T), for the longest of the rows: x the ids but the last, y the id after each, or IGNORE.

    y is IGNORE where the next id is not to be predicted, and on padding, by its place: the id that pads may have a
    meaning of its own (SmolLM2's is its end). Padding stands on the right, where a causal model's other positions never
    see it, so that no mask is needed. On the left it would be seen and would move the text to other positions.
    """
    x = np.zeros((len(rows), max(len(row.ids) for row in rows) - 1), np.int64)
    y = np.full_like(x, IGNORE)
    for b, (ids, target) in enumerate(rows):
        x[b, :len(ids) - 1] = ids[:-1]
        y[b, :len(ids) - 1] = np.where(target[1:], ids[1:], IGNORE)
    return x, y


class RowBatches:
    """An endless stream of (x, y) in passes: each pass draws every row once, in an order from the seed.

    The last batch of a pass may be smaller, and so is every batch where there are fewer rows than asked for.
    place: [pass, rows of it that have been drawn]; a stream of the same rows, batch and seed goes on from one that is
    set, bit for bit. left_out: rows that were too long to be among these.
    """

    def __init__(self, rows, batch, seed=0, left_out=0):
        check_int("RowBatches", batch=batch)
        check_int("RowBatches", least=0, seed=seed)
        if not rows:
            raise ValueError("RowBatches: there are no rows")
        self.rows, self.batch, self.seed, self.left_out, self.place = rows, batch, seed, left_out, [0, 0]

    def __iter__(self):
        return self

    def __next__(self):
        turn, at = self.place
        order = np.random.default_rng([self.seed, turn]).permutation(len(self.rows))
        chosen = [self.rows[i] for i in order[at:at + self.batch]]
        at += len(chosen)
        self.place = [turn, at] if at < len(self.rows) else [turn + 1, 0]
        return pad(chosen)


def completions(pairs, tokenizer, batch, context, seed=0, model=None):
    """An endless stream of (x, y), right-padded, (B, T) with T <= context, of (prompt, completion), in passes.

    Each pass draws every pair once, B = batch of them at a time, fewer at its end. Prompt and completion are encoded
    apart, and the end of text follows; y is -100 where nothing is to be predicted: on the prompt and on padding. Pairs
    that are too long are left out, never cut: the stream's left_out says how many. Its place can be kept and set again.
    model: the one to be trained; a tokenizer or a context that cannot be meant for it raises ValueError.
    """
    if not isinstance(pairs, (list, tuple)):
        raise TypeError(f"completions: expected a list of (prompt, completion), got {type(pairs).__name__}")
    check_int("completions", batch=batch, context=context)
    if model is not None:
        check_tokenizer(model, tokenizer)
        if context > model.config.context:
            raise ValueError(f"completions: context {context} is more than the model's, {model.config.context}")
    records = {i: {"prompt": pair[0], "completion": pair[1]} if isinstance(pair, (list, tuple)) and len(pair) == 2
               else pair for i, pair in enumerate(pairs)}
    rows, left_out = to_rows(records, tokenizer, context, "completions: pair")
    return RowBatches(rows, batch, seed, left_out)


def read_rows(path):
    """(form, {line number: record}) of a file of JSON lines, all of one form: a key of FORMS.

    A line ends at a newline alone; a byte order mark, carriage returns and blank lines are passed over. Raises
    ValueError in one line, with the line number, for what is not UTF-8, no JSON, or no record.
    """
    records, forms = {}, {}
    for n, line in enumerate(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            if line.strip():
                records[n] = _parsed(line)
                forms.setdefault(form_of(records[n]), n)
                if len(forms) > 1:
                    (first, at), (other, _) = forms.items()
                    raise ValueError(f"its form is {_named(other)}, but line {at} has {_named(first)}; use one")
        except ValueError as error:
            raise ValueError(f"{path}: line {n}: {error}") from None
    if not records:
        raise ValueError(f"{path}: holds no rows")
    return next(iter(forms)), records


def read_text(path):
    """The text of a file in UTF-8, without a byte order mark, lines ended by newlines. Raises ValueError otherwise."""
    content = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: line {1 + content[:error.start].count(10)}: not UTF-8: {error.reason}") from None


def form_of(record):
    """The form of a record, a key of FORMS. Raises ValueError for none, or for parts that are empty or no text."""
    if not isinstance(record, dict):
        raise ValueError(f"expected an object such as {_named('prompt')}, got {brief(record)}"
                         + "; write one object a line, without a list around them" * isinstance(record, list))
    found = [form for form, keys in FORMS.items() if any(key in record for key in keys)]
    if len(found) != 1:
        raise ValueError(f"expected {' or '.join(map(_named, FORMS))}, got the keys {brief([*record])}")
    for key in FORMS[found[0]]:
        if key not in record:
            raise ValueError(f"lacks {key!r}")
        if not isinstance(record[key], list if key == "messages" else str) or not record[key]:
            kind = "list of messages" if key == "messages" else "text"
            raise ValueError(f"{key!r} must be a {kind} that is not empty, got {brief(record[key])}")
    return found[0]


def _parsed(line):
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        advice = "; write one object a line, without a list around them" * line.startswith(b"[")
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}{advice}") from None
    except (RecursionError, ValueError) as error:  # nested too deep, or a number of too many digits
        raise ValueError(f"not JSON that can be read: {error}") from None


def _checked(row, tokenizer):
    if not row.target[1:].any():
        raise ValueError("it has no token that is to be predicted from one before it")
    begin, pad_id = row.ids[len(tokenizer.prefix):], tokenizer.pad_id
    padding = int((begin != pad_id).argmax()) if pad_id is not None else 0
    if padding > (pad_id in (*tokenizer.eos_ids, tokenizer.bos_id)):  # one of these may well begin a text
        raise ValueError(f"it begins with {padding} padding tokens; on the left they would be read as text")
    return row


def _named(form):
    return "{" + ", ".join(f'"{key}"' for key in FORMS[form]) + "}"
