"""Training data: what is to be predicted of a row, files of rows, sides of a split, passes, padding; and ChatML."""

import itertools
import json

import numpy as np
import pytest

from lora_np import data
from lora_np.extras.tuning.chatml import chat_ids, default_system
from lora_np.extras.tuning.rows import (
    IGNORE,
    Row,
    RowBatches,
    pad,
    read_rows,
    read_text,
    split_rows,
    text_rows,
    to_row,
    to_rows,
)
from lora_np.tokenizer import CHARACTER, BPETokenizer, CharTokenizer
from tests.helpers import small_gpt

pytestmark = pytest.mark.filterwarnings("error")
BYTES = {character: byte for byte, character in CHARACTER.items()}
START, END, BOS, PAD = 256, 257, 258, 259
SPECIAL = {"<|im_start|>": START, "<|im_end|>": END, "<s>": BOS, "<pad>": PAD}
TEMPLATE = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
            "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
            "{{ '<|im_start|>assistant\n' }}{% endif %}")


def small(**options):
    """A tokenizer of bytes whose padding id is its end id, as SmolLM2's is."""
    return BPETokenizer(BYTES, [], **{"special": SPECIAL, "eos_ids": [END, START], "pad_id": END, "split": "smollm",
                                      "chat_template": TEMPLATE, **options})


def learned(row, tokenizer):
    """(the text of a row, the text of its targets)."""
    return tokenizer.decode(row.ids), tokenizer.decode(row.ids[row.target])


# One row


@pytest.mark.parametrize(("record", "text", "target"), [
    ({"prompt": "1+1=", "completion": "2"}, "1+1=2<|im_end|>", "2<|im_end|>"),
    ({"prompt": "a ", "completion": " b", "id": 7}, "a  b<|im_end|>", " b<|im_end|>"),
    ({"prompt": "a", "completion": "b<|im_end|>"}, "ab<|im_end|>", "b<|im_end|>"),  # the end once
    ({"prompt": "<|im_start|>x", "completion": "y"}, "<|im_start|>xy<|im_end|>", "y<|im_end|>"),
    ({"text": "ab"}, "ab<|im_end|>", "ab<|im_end|>"),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
     "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n",
     "a<|im_end|>"),
])
def test_what_is_to_be_predicted(record, text, target):
    assert learned(to_row(record, small()), small()) == (text, target)


def test_special_tokens_are_read_in_prompts_and_texts():
    row = to_row({"prompt": "<|im_start|>x", "completion": "y"}, small())
    assert row.ids.tolist() == [START, ord("x"), ord("y"), END] and row.target.tolist() == [False, False, True, True]


def test_prompt_and_completion_are_encoded_apart():
    tokenizer = BPETokenizer({**BYTES, "ab": 256, "</s>": 257}, ["a b"], special={"</s>": 257}, eos_ids=[257])
    assert to_row({"prompt": "a", "completion": "b"}, tokenizer).ids.tolist() == [97, 98, 257]
    assert to_row({"text": "ab"}, tokenizer).ids.tolist() == [256, 257]


@pytest.mark.parametrize(("record", "text"), [
    ({"prompt": "a", "completion": "b"}, "<s>ab<|im_end|>"), ({"prompt": "<s>a", "completion": "b"}, "<s>ab<|im_end|>"),
    ({"text": "ab"}, "<s>ab<|im_end|>"), ({"text": "<s>ab"}, "<s>ab<|im_end|>"),
    ({"messages": [{"role": "system", "content": ""}, {"role": "assistant", "content": "a"}]},
     "<s><|im_start|>system\n<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"),
])
def test_bos_stands_in_front_exactly_once(record, text):
    tokenizer = small(prefix=[BOS], bos_id=BOS)
    row = to_row(record, tokenizer)
    assert tokenizer.decode(row.ids) == text and not row.target[0]


def test_characters_have_no_end():
    row = to_row({"prompt": "ab", "completion": "c"}, CharTokenizer("abc"))
    assert row.ids.tolist() == [0, 1, 2] and row.target.tolist() == [False, False, True]


@pytest.mark.parametrize(("record", "words"), [
    ([1], r"expected an object such as \{\"prompt\", \"completion\"\}, got \[1\]; write one object a line"),
    ("x", "expected an object"), (None, "got None"),
    ({}, r"expected \{.*\} or \{\"text\"\} or \{\"messages\"\}, got the keys \[\]"),
    ({"question": "a"}, r"got the keys \['question'\]"),
    ({"prompt": "a", "completion": "b", "text": "c"}, "got the keys"),
    ({"prompt": "a"}, "lacks 'completion'"), ({"completion": "a"}, "lacks 'prompt'"),
    ({"prompt": "", "completion": "b"}, "'prompt' must be a text that is not empty, got ''"),
    ({"prompt": "a", "completion": ""}, "'completion' must be a text"),
    ({"prompt": "a", "completion": 3}, "'completion' must be a text that is not empty, got 3"),
    ({"prompt": ["a"], "completion": "b"}, "'prompt' must be a text"),
    ({"text": None}, "'text' must be a text that is not empty, got None"),
    ({"text": "\ud800"}, r"'\\ud800' at position 0 is half a surrogate pair"),
    ({"prompt": "a", "completion": "b\udc00"}, "half a surrogate pair"),
    ({"messages": []}, "'messages' must be a list of messages that is not empty"),
    ({"messages": "hi"}, "'messages' must be a list of messages"),
    ({"messages": ["hi"]}, "message 1 must be"),
    ({"messages": [{"role": "user"}]}, "message 1 must be"),
    ({"messages": [{"role": "user", "content": 3}]}, "message 1 must be"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}, "message 2 has the role 'bot'"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no message is the assistant's"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}, "message 2.*is empty"),
    ({"prompt": "<pad>", "completion": "b"}, None),
    ({"prompt": "<|im_end|><|im_end|>a", "completion": "b"}, "begins with 2 padding tokens; on the left"),
    ({"text": "<|im_end|>ab"}, None),  # an end before a text parts it from another
])
def test_what_is_no_row(record, words):
    if words is None:
        assert to_row(record, small()).target.any()
        return
    with pytest.raises(ValueError, match=words) as error:
        to_row(record, small())
    assert "\n" not in str(error.value)


def test_padding_on_the_left_is_seen():
    with pytest.raises(ValueError, match="begins with 1 padding tokens"):
        to_row({"text": "<pad>a"}, small(pad_id=PAD))
    with pytest.raises(ValueError, match="begins with 2 padding tokens"):
        to_row({"text": "<s><pad><pad>a"}, small(pad_id=PAD, prefix=[BOS]))


def test_what_leaves_nothing_to_predict():
    few = BPETokenizer({c: i for c, i in BYTES.items() if i != 1} | SPECIAL, [], special=SPECIAL, eos_ids=[END])
    for record, words in (({"prompt": "\1", "completion": "a"}, "the prompt has no tokens"),
                          ({"prompt": "a", "completion": "\1"}, "the completion has no tokens"),
                          ({"text": "\1"}, "the text has no tokens")):
        with pytest.raises(ValueError, match=words):
            to_row(record, few)
    with pytest.raises(ValueError, match="no token that is to be predicted"):
        to_row({"text": "a"}, CharTokenizer())


# ChatML


def test_a_system_message_takes_the_place_of_the_default():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "?"},
                {"role": "assistant", "content": "\n!"}]
    ids, target = chat_ids(messages, small())
    assert small().decode(ids) == "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    assert small().decode(ids[target]) == "Hi.<|im_end|>\n!<|im_end|>"


def test_contents_are_text():
    messages = [{"role": "user", "content": "a<|im_end|>\n<|im_start|>assistant\nb"},
                {"role": "assistant", "content": "<|im_end|>"}]
    ids, target = chat_ids(messages, small())
    assert (ids == START).sum() == 3 and (ids == END).sum() == 3 and (ids[target] == END).sum() == 1
    assert small().decode(ids[target]) == "<|im_end|><|im_end|>"


def test_a_turn_is_opened_for_a_reply():
    tokenizer = small(chat_template="{{'<|im_start|>'}}...<|im_end|>")
    ids, _ = chat_ids([{"role": "user", "content": "q"}], tokenizer, reply=True)
    assert small().decode(ids) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_may_write_the_bos_that_the_tokenizer_does_not_add():
    messages = [{"role": "user", "content": "q"}]
    for prefix, template, bos in ((), "{{ bos_token }}", "<s>"), ([BOS], "{{ bos_token }}", "<s>"), ((), "", ""):
        tokenizer = small(prefix=prefix, bos_id=BOS, chat_template=f"{template}<|im_start|><|im_end|>")
        assert tokenizer.decode(chat_ids(messages, tokenizer, reply=True)[0]).startswith(f"{bos}<|im_start|>user")


def test_a_template_that_writes_thoughts_is_one_to_reply_with_and_not_to_learn_from():
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    tokenizer = small(chat_template="<|im_start|>{{ m }}<think>{{ thoughts }}</think>{{ m }}<|im_end|>")
    assert tokenizer.decode(chat_ids(messages[:1], tokenizer, reply=True)[0]).endswith("<|im_start|>assistant\n")
    with pytest.raises(ValueError, match="the chat template is Qwen3's, which puts thoughts before an answer"):
        to_row({"messages": messages}, tokenizer)


@pytest.mark.parametrize(("template", "default"), [
    (TEMPLATE, "Be kind."), (TEMPLATE.replace("\n", "\\n"), "Be kind."),
    (TEMPLATE.replace("Be kind.", "It\\'s me.\\nHi."), "It's me.\nHi."),
    ("{% if tools %}{{- '<|im_start|>system\\n' }}{{- '# Tools <|im_end|>' }}{%- else %}{{- '<|im_start|>system\\n' + "
     "messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nYou are Q.<|im_end|>\\n' }}",
     "You are Q."),
    ("{% if messages[0].role == 'system' %}{{'<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}", None),
    ("{% if x %}<|im_start|>system\nRaw.<|im_end|>\n{% endif %}", "Raw."),
    ('{% set system_message = "Set." %}<|im_start|>{{ m }}<|im_end|>', "Set."),
])
def test_the_default_is_read_from_the_template(template, default):
    assert default_system(small(chat_template=template)) == default


@pytest.mark.parametrize(("template", "words"), [
    (None, "has no chat template; messages need a model trained on chats"),
    ("<|start_header_id|>{{ m }}<|eot_id|>", "is Llama 3's, which is not supported; ChatML is"),
    ("<|im_start|>user<|im_sep|>{{ m }}<|im_end|>", "is Phi-4's"), ("[INST] {{ m }} [/INST]", "is Llama 2's"),
    ("<start_of_turn>user", "is Gemma's"), ("<|user|>\n{{ m }}", "is Zephyr's or TinyLlama's"),
    ("{{ m }}", "is unknown, which is not supported"), ("<|im_start|>{{ m }}", "is unknown"),
])
def test_other_templates_are_refused_by_name(template, words):
    with pytest.raises(ValueError, match=words):
        to_row({"messages": [{"role": "assistant", "content": "a"}]}, small(chat_template=template))


def test_a_template_must_fit_the_tokenizer():
    with pytest.raises(ValueError, match=r"writes <\|im_start\|>, which is no control token"):
        default_system(small(special={"<|im_end|>": END}, eos_ids=[END]))


# From files


def write(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else "\n".join(map(json.dumps, content)).encode())
    return path


def test_marks_carriage_returns_and_blank_lines_are_passed_over(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n'
                           b'{"text": "b\\u2028"}\r\n{"text": "\xe2\x80\xa8c"}\n\n')
    assert read_rows(path) == ("text", {1: {"text": "a"}, 4: {"text": "b\u2028"}, 5: {"text": "\u2028c"}})


@pytest.mark.parametrize(("content", "words"), [
    (b'{"text": "a"}\n{"text": "b"', "line 2: not JSON: Expecting ',' delimiter at column 13"),
    (b'[\n{"text": "a"}\n]', "line 1: not JSON: .*without a list around them"),
    (b'[{"text": "a"}]', "line 1: expected an object .* got .*; write one object a line, without a list around them"),
    (b'{"text": "a"}\n\n{"text": "\xff"}', "line 3: not UTF-8: invalid start byte at byte 10"),
    ('{"text": "a"}'.encode("utf-16"), "line 1: not UTF-8"),
    (b'{"text": "a"}\n{"prompt": "a", "completion": "b"}',
     r'line 2: its form is \{"prompt", "completion"\}, but line 1 has \{"text"\}; use one'),
    (b'{"text": "a"}\n{"text": ""}', "line 2: 'text' must be a text that is not empty, got ''"),
    (b'{"text": "a"}\n{"txt": "b"}', r"line 2: expected .* got the keys \['txt'\]"),
    (b'{"text": ' + b"[" * 100_000, "line 1: not JSON that can be read"),
    (b'{"text": ' + b"1" * 5000 + b"}", "line 1: "),
    (b"", "holds no rows"), (b"\n \r\n", "holds no rows"),
])
def test_bad_files_get_one_line_with_its_number(tmp_path, content, words):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=words) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_rows_that_only_the_tokenizer_refuses_are_named_too():
    with pytest.raises(ValueError, match=r"line 7: encode: '\\ud800' at position 1"):
        to_rows({3: {"text": "a"}, 7: {"text": "b\ud800"}}, small(), 10, "line")
    with pytest.raises(TypeError, match="expected a CharTokenizer or a BPETokenizer, got NoneType"):
        to_rows({1: {"text": "a"}}, None, 10)


def test_texts(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfone\r\n\ntwo\xe2\x80\xa8\n")
    assert read_text(path) == "one\n\ntwo\u2028\n"
    with pytest.raises(ValueError, match="line 3: not UTF-8: invalid start byte"):
        read_text(write(tmp_path, b"a\nb\n\xff"))


@pytest.mark.parametrize("prefix", [[], [BOS]])
def test_a_long_text_as_rows(prefix):
    tokenizer = small(prefix=prefix)
    made = text_rows("abcdefghij", tokenizer, 4)
    assert all(row.ids[:len(prefix)].tolist() == prefix and len(row.ids) <= 5 for row in made)
    assert tokenizer.decode(np.concatenate([row.ids[row.target] for row in made])) == "bcdefghij"  # each once
    x, y = pad(made[:1])
    assert x.shape == (1, 4) and (y[y != IGNORE] == made[0].ids[1 + len(prefix):]).all()
    with pytest.raises(ValueError, match="1 tokens are no row for a context of 4"):
        text_rows("a", tokenizer, 4)


# Splits, batches


def numbered(*numbers):
    return [Row(np.array([n, n + 1]), np.array([False, True])) for n in numbers]


def firsts(found):
    return [int(row.ids[0]) for row in found]


def test_a_split_comes_from_a_seed_and_holds_out_a_share():
    made = numbered(*range(50))
    train, held = split_rows(made, 0.1, seed=3)
    assert len(held) == 5 and sorted(firsts(train) + firsts(held)) == list(range(50))
    assert firsts(split_rows(made, 0.1, seed=3)[1]) == firsts(held) != firsts(split_rows(made, 0.1, seed=4)[1])
    assert split_rows(made, 0)[1] == []


def test_identical_rows_stay_on_one_side():
    made = numbered(*[7] * 10, *range(100, 120), *[8] * 3, *[9] * 2)
    for seed in range(50):
        train, held = split_rows(made, 0.2, seed)
        assert not {*firsts(train)} & {*firsts(held)} and 0 < len(held) <= 7
    masks = [Row(np.array([1, 2, 3]), np.array(mask)) for mask in ([False, False, True], [False, True, True])]
    assert [len(side) for side in split_rows(masks, 0.5)] == [1, 1]  # other targets make another row


@pytest.mark.parametrize("made", [numbered(1), numbered(1, 2, 3), numbered(*[5] * 40)])
def test_too_few_rows_are_never_held_out(made):
    train, held = split_rows(made, 0.1)
    assert len(train) == len(made) and held == []


@pytest.mark.parametrize(("n", "batch"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_each_pass_draws_every_row_once(n, batch):
    stream, orders = RowBatches(numbered(*range(n)), batch, seed=1), []
    for _ in range(8):
        sizes, drawn = [], []
        while len(drawn) < n:
            x, _ = next(stream)
            sizes.append(len(x))
            drawn += x[:, 0].tolist()
        assert sorted(drawn) == list(range(n)) and sizes == [batch] * (n // batch) + [n % batch] * (n % batch > 0)
        orders.append(tuple(drawn))
    assert n < 6 or len({*orders}) > 1
    again = RowBatches(numbered(*range(n)), batch, seed=1)
    assert next(again)[0][:, 0].tolist() == [*orders[0][:batch]]


def test_a_stream_goes_on_from_its_place_bit_for_bit():
    made = numbered(*range(11))
    stream = RowBatches(made, 4, seed=5)
    for steps in range(12):
        place = json.loads(json.dumps(stream.place))
        again = RowBatches(made, 4, seed=5)
        again.place = place
        upcoming = [x.tolist() for x, _ in itertools.islice(again, 7)]
        whole = RowBatches(made, 4, seed=5)
        assert upcoming == [x.tolist() for x, _ in itertools.islice(whole, steps, steps + 7)]
        next(stream)


def test_padding_stands_on_the_right_and_is_no_target_by_its_place():
    tokenizer = small()
    pairs = [{"prompt": "abc", "completion": "d"}, {"prompt": "a", "completion": "b"}]
    x, y = pad([to_row(pair, tokenizer) for pair in pairs])
    assert x[0].tolist() == [97, 98, 99, 100] and y[0].tolist() == [IGNORE, IGNORE, 100, END]
    assert x[1, :2].tolist() == [97, 98] and y[1].tolist() == [98, END, IGNORE, IGNORE]


def test_the_end_is_a_target_though_its_id_pads():
    x, y = next(data.completions([("a", "b"), ("cccccccc", "dddd")], small(), 2, 30))
    assert (y == END).sum() == 2 and ((y == IGNORE).sum(axis=1) > 0).all() and x.shape == y.shape == (2, 12)


def test_completions():
    pairs = [("ab", "c"), {"prompt": "de", "completion": "f"}, ("g" * 20, "h"), ["i", "j" * 9]]
    stream = data.completions(pairs, small(), 2, 10, seed=2)
    assert stream.left_out == 1
    seen = [small().decode(ids[: (y != IGNORE).nonzero()[0][-1] + 1]) for _ in range(2) for x, y in [next(stream)]
            for ids, y in zip(x, y, strict=True)]
    assert sorted(seen) == ["abc", "def", "i" + "j" * 9]
    fits, model = small(), small_gpt(vocab_size=260, context=12)
    assert data.completions(pairs, fits, 2, 11, model=model).left_out == 1
    x, y = next(data.completions([("a" * 3, "b" * 3)], fits, 1, 6, model=model))  # 7 ids have room in a context of 6
    assert x.shape == (1, 6) and y[0, -1] == END


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda t, m: data.completions("ab", t, 2, 8), TypeError, r"expected a list of \(prompt, completion\), got str"),
    (lambda t, m: data.completions(None, t, 2, 8), TypeError, "got NoneType"),
    (lambda t, m: data.completions([], t, 2, 8), ValueError, "there are no rows"),
    (lambda t, m: data.completions([("a", "b")], None, 2, 8), TypeError, "expected a CharTokenizer or a BPETokenizer"),
    (lambda t, m: data.completions([("a", "b")], t, 0, 8), ValueError, "batch must be a whole number of at least 1"),
    (lambda t, m: data.completions([("a", "b")], t, 2, 0), ValueError, "context must be a whole number of at least 1"),
    (lambda t, m: data.completions([("a", "b")], t, 2, 8, seed=-1), ValueError, "seed must be a whole number"),
    (lambda t, m: data.completions([("a", "b"), ("a",)], t, 2, 8), ValueError, "completions: pair 1: expected an obj"),
    (lambda t, m: data.completions([("a", "")], t, 2, 8), ValueError, "pair 0: 'completion' must be a text"),
    (lambda t, m: data.completions([("aaaa", "b")], t, 2, 3), ValueError,
     "none of 1 rows has room in a context of 3 tokens; the shortest takes 5"),
    (lambda t, m: data.completions([("a", "b")], t, 2, 13, model=m), ValueError,
     "context 13 is more than the model's, 12"),
    (lambda t, m: data.completions([("a", "b")], small(added={"<x>": 300}), 2, 8, model=m), ValueError,
     "ids go up to 300, but this model has 260"),
    (lambda t, m: split_rows(numbered(1), 1.0), ValueError, r"fraction must be in \[0, 1\)"),
    (lambda t, m: RowBatches([], 2), ValueError, "there are no rows"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(small(), small_gpt(vocab_size=260, context=12))


def test_characters_on_a_model_with_its_own_tokenizer_are_refused():
    model = small_gpt(vocab_size=260, context=12)
    model.tokenizer = "bpe"
    assert data.completions([("a", "b")], small(), 2, 8, model=model)
    with pytest.raises(ValueError, match="the CharTokenizer: ids of the kind char, but this model came with"):
        data.completions([("a", "b")], CharTokenizer(), 2, 8, model=model)


def test_padding_changes_no_logit_of_the_text():
    model = small_gpt(vocab_size=260, context=12)
    short, long = ({"prompt": p, "completion": "b"} for p in ("a", "a" * 9))
    made = [to_row(record, small()) for record in (short, long)]
    alone, both = model(pad(made[:1])[0]).data, model(pad(made)[0]).data
    np.testing.assert_allclose(both[0, :alone.shape[1]], alone[0], rtol=0, atol=1e-13)
