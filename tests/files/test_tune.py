"""python -m lora_np: tune, generate and merge, on a small Llama with a tokenizer of its own."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import GPT, GPTConfig, Llama, LlamaConfig, generate, train
from lora_np import __main__ as command
from lora_np.checkpoint import load_adapter, load_model, load_tokenizer, safetensors, save_model
from lora_np.extras.tuning import tune
from lora_np.tokenizer import CHARACTER, BPETokenizer, CharTokenizer
from tests.helpers import real

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "tests" / "reference" / "tokenizers" / "smollm"
PAIRS = [{"prompt": f"{a} plus {b} is", "completion": f" {a + b}."} for a in range(6) for b in range(4)]
CHATS = [{"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"{n}"}]}
         for n in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    tokenizer = load_tokenizer(TOKENIZER)
    model = Llama(LlamaConfig(len(tokenizer), 96, d_model=32, n_heads=4, n_kv_heads=2, n_layers=2, d_ff=48))
    save_model(model, folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    """A model with dropout, and a tokenizer of characters."""
    folder = tmp_path_factory.mktemp("models") / "opt"
    config = GPTConfig(96, 96, d_model=16, n_heads=2, n_layers=2, d_ff=24, dropout=0.3)
    save_model(GPT(config), folder, CharTokenizer())
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    Path("chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    Path("text.txt").write_text("Once upon a time there was a matrix of low rank. " * 40)
    return tmp_path


def run(capsys, *words):
    status = command.main([*map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def tuned(capsys, base, out, *words, data="--data=pairs.jsonl"):
    status, said, err = run(capsys, "tune", "--model", base, data, "--out", out, "--steps", 12, "--lr", 0.02, *words)
    assert status == 0, err
    return said, err


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_it_learns_and_says_what_it_did(base, desk, capsys):
    said, err = tuned(capsys, base, "a", "--steps", 60)
    losses = [float(line.split("validation ")[1].split()[0]) for line in err.splitlines() if "validation" in line]
    assert losses[-1] < losses[0] - 0.5
    assert "trainable params: 1,792 || all params: " in err and "22 rows to train on, 2 held out" in err
    assert re.match(r"a: [1-9]\d?\.\d kB; python -m lora_np generate", said)
    status, text, _ = run(capsys, "generate", "--model", base, "--adapter", "a", "2 plus 3 is", "--n", 6)
    assert status == 0 and "." in text
    assert json.loads(Path("a/training_state.json").read_text())["step"] == 60


@pytest.mark.parametrize(("steps", "highest_at"), [(1, 0), (2, 0), (4, 2), (12, 4)])
def test_no_step_is_wasted_on_a_learning_rate_of_0(base, desk, capsys, monkeypatch, steps, highest_at):
    rates, real = [], tune.AdamW.step
    monkeypatch.setattr(tune.AdamW, "step", lambda self: (rates.append(self.lr), real(self)))
    tuned(capsys, base, "a", "--steps", steps)
    assert len(rates) == steps and min(rates) > 0
    assert max(rates) == 0.02 and rates.index(0.02) == highest_at


def assert_gone_on_with(capsys, model, *words, data="--data=pairs.jsonl"):
    """That the training in `parts`, with --resume, ends where the one in `whole` did."""
    tuned(capsys, model, "parts", "--resume", *words, data=data)
    for name, content in contents("whole").items():
        assert contents("parts")[name] == content, name


@pytest.mark.parametrize(("model", "data"), [("base", "--data=pairs.jsonl"), ("base", "--data=chats.jsonl"),
                                             ("base", "--text=text.txt"), ("opt", "--data=pairs.jsonl")])
def test_what_is_gone_on_with_is_as_if_never_stopped(request, desk, capsys, monkeypatch, model, data):
    model, words = request.getfixturevalue(model), ("--context", 80, "--batch", 3)
    tuned(capsys, model, "whole", *words, data=data)
    taken = []

    def loss(model, x, y, real=train.next_token_loss):
        value = real(model, x, y)  # in which dropout has drawn
        if model.training:
            taken.append(1)
            if len(taken) == 8:
                raise KeyboardInterrupt
        return value

    monkeypatch.setattr(tune, "fit", lambda *a, **o: train.fit(*a, **o, loss=loss))
    said, err = tuned(capsys, model, "parts", *words, data=data)
    assert "parts holds step 7 of 12" in said and "stopped at step 7 of 12" in err
    monkeypatch.setattr(tune, "fit", train.fit)
    assert_gone_on_with(capsys, model, data=data)


@pytest.mark.parametrize("where", ["step", "save"])
def test_ctrl_c_at_a_bad_moment_keeps_a_whole_step(base, desk, capsys, monkeypatch, where):
    def also(function, at, calls=()):
        calls = [*calls]

        def called(*given, **options):
            result = function(*given, **options)
            calls.append(1)
            if len(calls) in at:
                signal.raise_signal(signal.SIGINT)
            return result
        return called

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores Ctrl-C
    try:
        tuned(capsys, base, "whole")
        with monkeypatch.context() as patch:
            patch.setattr(tune.AdamW, "step", also(tune.AdamW.step, {5}))
            if where == "save":  # a second time, while the first one's adapter is written
                patch.setattr(os, "fsync", also(os.fsync, {2}))
            words = ["tune", "--model", base, "--data=pairs.jsonl", "--out", "parts", "--steps", 12, "--lr", 0.02]
            if where == "save":
                assert run(capsys, *words)[0] == 130
            else:
                assert "parts holds step 5 of 12" in run(capsys, *words)[1]
        assert_gone_on_with(capsys, base)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_adapter_is_of_its_base_and_pads_nothing(base, desk, capsys):
    tuned(capsys, base, "a")
    model = load_model(base)
    load_adapter(model, "a")
    tokenizer = load_tokenizer(base)
    ids = tokenizer.encode("2 plus 3 is")
    ours = tokenizer.decode(generate(model, ids, 5, temperature=0, stop=[*tokenizer.eos_ids])[len(ids):],
                            skip_special=True)
    _, text, _ = run(capsys, "generate", "--model", base, "--adapter", "a", "2 plus 3 is", "--n", 5)
    assert text.rstrip("\n") == ours


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama3", "qwen2", "char"])
def test_every_kind_of_tokenizer_is_trained_with_and_generates(desk, capsys, kind):
    tokenizer = CharTokenizer() if kind == "char" else load_tokenizer(TOKENIZER.parent / kind)
    V = len(tokenizer) + 9
    save_model(Llama(LlamaConfig(V, 64, d_model=16, n_heads=4, n_kv_heads=2, n_layers=1, d_ff=24)), "model", tokenizer)
    tuned(capsys, "model", "a", "--r", 2)
    words = ["generate", "--model", "model", "--adapter", "a", "2 plus 3 is", "--n", 5]
    status, text, err = run(capsys, *words)
    assert status == 0 and not err
    model, ids = load_model("model"), tokenizer.encode("2 plus 3 is", add_special_tokens=kind in ("opt", "llama3"))
    assert (len(ids) and ids[0] == tokenizer.bos_id) == (kind in ("opt", "llama3"))
    load_adapter(model, "a")
    new = generate(model, ids, 5, temperature=0, stop=[*tokenizer.eos_ids])[len(ids):]
    assert text == tokenizer.decode([i for i in new if i not in tokenizer.eos_ids], skip_special=True) + "\n"
    assert run(capsys, "merge", "--model", "model", "--adapter", "a", "--out", "merged")[0] == 0
    assert run(capsys, "generate", "--model", "merged", *words[5:]) == (0, text, "")


def test_merged_is_the_same_model_without_an_adapter(base, desk, capsys):
    tuned(capsys, base, "a", "--targets", "all-linear", "--r", 2)
    assert run(capsys, "merge", "--model", base, "--adapter", "a", "--out", "merged")[0] == 0
    with_adapter, merged, ids = load_model(base), load_model("merged"), np.arange(8)[None]
    paths = load_adapter(with_adapter, "a")
    assert {path.split(".")[-1] for path in paths} == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                                                       "down_proj"}
    np.testing.assert_allclose(merged(ids).data, with_adapter(ids).data, atol=1e-5)
    assert np.abs(merged(ids).data - load_model(base)(ids).data).max() > 1e-3
    assert load_tokenizer("merged").encode("a b").tolist() == load_tokenizer(base).encode("a b").tolist()


def test_generate_says_when_it_is_asked_the_other_way(base, desk, capsys):
    tuned(capsys, base, "pairs")
    tuned(capsys, base, "chats", data="--data=chats.jsonl")
    for adapter, chat, note in (("pairs", ["--chat"], True), ("pairs", [], False), ("chats", [], True),
                                ("chats", ["--chat"], False)):
        status, _, err = run(capsys, "generate", "--model", base, "--adapter", adapter, *chat, "Say 3", "--n", 2)
        assert status == 0 and err.count("note: ") == note


def test_a_chat_has_the_system_message_that_is_given_also_an_empty_one(base, desk, capsys, monkeypatch):
    read, tokenizer = [], load_tokenizer(base)
    monkeypatch.setattr(tokenizer, "chat_template", "<|im_start|>system\nBe kind.<|im_end|>\n{{ messages }}")
    monkeypatch.setattr(command, "load_tokenizer", lambda path: tokenizer)
    monkeypatch.setattr(command, "stream", lambda model, ids, *rest: read.append(tokenizer.decode(ids)) or iter(()))
    for words, said in (([], "Be kind."), (["--system", "Be brief."], "Be brief."), (["--system", ""], "")):
        assert run(capsys, "generate", "--model", base, "--chat", "Hi", *words)[0] == 0
        assert read.pop() == (f"<|im_start|>system\n{said}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                              "<|im_start|>assistant\n")


def test_a_chat_ends_with_its_end_mark_though_the_models_end_is_another(base, desk, capsys, monkeypatch):
    shutil.copytree(base, "plain")
    settings = json.loads(Path("plain/tokenizer_config.json").read_text())
    Path("plain/tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    tokenizer = load_tokenizer("plain")
    said = tokenizer.encode("yes<|im_end|>no<|endoftext|>maybe").tolist()

    def stream(model, ids, n, temperature, seed, stop, top_p):
        for i in said:
            yield i
            if i in stop:
                return

    monkeypatch.setattr(command, "stream", stream)
    assert tokenizer.eos_ids == (tokenizer.special["<|endoftext|>"],)
    assert run(capsys, "generate", "--model", "plain", "--chat", "x")[1] == "yes\n"
    assert run(capsys, "generate", "--model", "plain", "x")[1] == "yesno\n"


def test_ctrl_c_ends_generating_in_one_line(base, capsys, monkeypatch):
    def stream(*given):
        yield 300
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "stream", stream)
    status, out, err = run(capsys, "generate", "--model", base, "x")
    assert status == 130 and out == load_tokenizer(base).decode([300]) and err == "\nlora_np generate: stopped\n"


def test_a_prompt_that_is_piped_is_the_same_prompt(base, desk, capsys, monkeypatch):
    def said(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return run(capsys, "generate", "--model", base, "-", "--n", 8)[1:]

    plain, longer = (run(capsys, "generate", "--model", base, text, "--n", 8)[1:] for text in ("a\nb:", "a\nb:\n"))
    assert plain != longer
    assert said("a\nb:") == said("a\nb:\n") == said("\ufeffa\nb:\n") == plain and said("a\nb:\n\n") == longer
    assert "the prompt is empty" in said("\n")[1]


def process(*words, **settings):
    return subprocess.Popen([sys.executable, "-m", "lora_np", *map(str, words)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT), **settings})


def test_a_console_without_a_character_shows_a_question_mark(base, desk):
    words = ["generate", "--model", base, "x \u2192 \u65e5", "--n", 12, "--temperature", 2]
    plain, ascii_only = process(*words, PYTHONIOENCODING="utf-8"), process(*words, PYTHONIOENCODING="ascii")
    text, shown = plain.communicate()[0].decode(), ascii_only.communicate()[0].decode("ascii")
    assert plain.returncode == ascii_only.returncode == 0 and not text.isascii()
    assert shown == "".join(c if c.isascii() else "?" for c in text)


def test_nobody_may_read_on(base, desk):
    with process("generate", "--model", base, "x", "--n", 3000) as writer:
        assert writer.stdout.read(1)
        writer.stdout.close()
        assert not writer.stderr.read() and writer.wait() == 1


def test_a_gap_among_the_ids_is_never_generated(desk, capsys):
    """No token may have some ids in the middle, as in the files of some makers; all their logits are the highest."""
    tokenizer = load_tokenizer(TOKENIZER)
    config = LlamaConfig(len(tokenizer) + 5, 32, d_model=8, n_heads=2, n_kv_heads=1, n_layers=1, d_ff=8, tied=False)
    model, byte = Llama(config), tokenizer.vocab[CHARACTER[1]]
    gaps = [byte, 300, 301, len(tokenizer) + 2]
    h, W = model.hidden(np.array([[5]])).data[0, -1], model.lm_head.weight.data.copy()
    W[gaps] = 100 * h
    model.lm_head.weight.data = W
    absent = [token for token, i in tokenizer.vocab.items() if i in gaps]
    merges = [f"{a} {b}" for a, b in tokenizer.ranks if not {a, b, a + b} & {*absent}]
    vocab = {token: i for token, i in tokenizer.vocab.items() if token not in absent}
    save_model(model, "gaps", BPETokenizer(vocab, merges, "smollm", tokenizer.special, eos_ids=[2]))
    assert load_model("gaps").lacking.tolist() == [*gaps[:3], *range(len(tokenizer), len(tokenizer) + 5)]
    status, _, err = run(capsys, "generate", "--model", "gaps", tokenizer.decode([5]), "--n", 20)
    assert status == 0 and not err
    status, _, err = run(capsys, "generate", "--model", "gaps", "\1")
    assert status == 2 and "the prompt '\\x01' has no tokens" in err


def test_few_rows_and_long_rows_are_told(base, desk, capsys):
    Path("few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS[:3]))
    assert "3 rows to train on, 0 held out: there are too few" in tuned(capsys, base, "a", data="--data=few.jsonl")[1]
    long = {"prompt": "x " * 60, "completion": "y"}
    Path("long.jsonl").write_text(json.dumps(long) + "\n" + json.dumps(PAIRS[0]))
    _, err = tuned(capsys, base, "b", "--context", 40, data="--data=long.jsonl")
    assert "; 1 left out, longer than 40 tokens" in err


BAD = {
    "no such data": (["--data", "absent.jsonl"], "absent.jsonl: No such file"),
    "data is a folder": (["--data", "."], "Is a directory"),
    "no JSON": (["--data", "bad.jsonl"], "bad.jsonl: line 2: not JSON"),
    "nothing fits": (["--data", "pairs.jsonl", "--context", "2"], "none of 24 rows"),
    "context": (["--data", "pairs.jsonl", "--context", "97"], "--context 97: the model's own is 96"),
    "rank": (["--data", "pairs.jsonl", "--r", "20"], "layers.0.self_attn.v_proj: r=20 is more than min(d, k)=16"),
    "target": (["--data", "pairs.jsonl", "--targets", "w_proj"], "target 'w_proj' names no Linear layer"),
    "steps": (["--data", "pairs.jsonl", "--steps", "0"], "steps must be a whole number of at least 1"),
    "short text": (["--text", "short.txt"], "short.txt: 1 tokens are no row for a context of 96"),
    "out in a file": (["--data", "pairs.jsonl", "--out", "text.txt/a"], "text.txt is a file; give the name of a new"),
    "share": (["--data", "pairs.jsonl", "--held-out", "1"], "held_out must be in [0, 1)"),
    "blocks": (["--data", "pairs.jsonl", "--quantized"], "floats alone"),
    "resume": (["--data", "pairs.jsonl", "--resume"], "new holds no training to go on with"),
}


@pytest.mark.parametrize(("words", "expected"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_trained_on_is_one_line_and_writes_nothing(base, desk, capsys, words, expected):
    Path("bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    Path("short.txt").write_text("a")
    before = sorted(desk.rglob("*"))
    status, out, err = run(capsys, "tune", "--model", base, "--out", "new", *words)
    assert status == 2 and not out and expected in err and err.count("\n") == 1 and err.startswith("lora_np tune: ")
    assert sorted(desk.rglob("*")) == before


def test_out_is_never_written_over(base, desk, capsys):
    tuned(capsys, base, "a")
    kept = contents("a")
    for name, words in (("a", ["tune", "--data", "pairs.jsonl"]), ("pairs.jsonl", ["tune", "--data", "pairs.jsonl"]),
                        ("a", ["merge", "--adapter", "a"])):
        status, _, err = run(capsys, words[0], "--model", base, *words[1:], "--out", name)
        assert status == 2 and f"--out {name} is a" in err
    assert contents("a") == kept


def test_resume_refuses_other_data_settings_and_files(base, desk, capsys):
    tuned(capsys, base, "a")
    again = ["tune", "--model", base, "--out", "a", "--resume"]
    for words, expected in ((["--data", "chats.jsonl"], "is not the data"),
                            (["--data", "pairs.jsonl", "--lr", "0.1"], "--lr was 0.02 and is 0.1 now"),
                            (["--data", "pairs.jsonl", "--steps", "20"], "--steps was 12 and is 20 now")):
        status, _, err = run(capsys, *again, *words)
        assert status == 2 and expected in err
    tuned(capsys, base, "b", "--steps", 6)
    shutil.copy("b/adapter_model.safetensors", "a/adapter_model.safetensors")
    status, _, err = run(capsys, *again, "--data", "pairs.jsonl")
    assert status == 2 and "of different steps, 12 and 6" in err


def test_a_text_is_not_the_rows_of_the_same_file(base, desk, capsys, monkeypatch):
    Path("rows.jsonl").write_text("".join(json.dumps({"text": row["prompt"]}) + "\n" for row in PAIRS))
    monkeypatch.setattr(tune.Run, "after", lambda *now: (_ for _ in ()).throw(KeyboardInterrupt))
    tuned(capsys, base, "a", data="--data=rows.jsonl")
    status, _, err = run(capsys, "tune", "--model", base, "--out", "a", "--resume", "--text", "rows.jsonl")
    assert status == 2 and "rows.jsonl is not the data" in err


@pytest.mark.parametrize("changes", [{"settings": {}}, {"step": None}, {"place": "x"}, {"rows": None}, {"form": 3}])
def test_a_record_that_was_changed_is_refused_by_its_name(base, desk, capsys, changes):
    tuned(capsys, base, "a")
    path, kept = Path("a/training_state.json"), contents("a")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    status, _, err = run(capsys, "tune", "--model", base, "--data", "pairs.jsonl", "--out", "a", "--resume")
    assert status == 2 and err.count("\n") == 1
    assert f"training_state.json: {next(iter(changes))} is" in err or "of different steps, 12 and None" in err
    assert {**contents("a"), path.name: 0} == {**kept, path.name: 0}


@pytest.mark.skipif(os.name == "nt" or not os.getuid(), reason="this user may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused_before_training(base, desk, capsys):
    Path("closed").mkdir(mode=0o500)
    status, _, err = run(capsys, "tune", "--model", base, "--data", "pairs.jsonl", "--out", "closed/a")
    assert status == 2 and "closed cannot be written to" in err and err.count("\n") == 1


def test_a_share_leaves_a_row_to_train_on(base, desk, capsys):
    assert "1 rows to train on, 23 held out" in tuned(capsys, base, "a", "--held-out", 0.999)[1]


def test_alpha_need_not_be_whole(base, desk, capsys):
    tuned(capsys, base, "a", "--alpha", 0.5)
    assert json.loads(Path("a/adapter_config.json").read_text())["lora_alpha"] == 0.5


def test_a_loss_that_is_not_finite_keeps_the_last_whole_step(base, desk, capsys, monkeypatch):
    calls = []

    def loss(model, x, y):
        calls.append(model.training)
        return train.next_token_loss(model, x, y) * (np.nan if sum(calls) == 4 else 1)

    monkeypatch.setattr(tune, "fit", lambda *a, **o: train.fit(*a, **o, loss=loss))
    status, _, err = run(capsys, "tune", "--model", base, "--data", "pairs.jsonl", "--out", "a", "--steps", 12)
    assert status == 1 and "the loss is nan at step 3" in err
    assert json.loads(Path("a/training_state.json").read_text())["step"] == 3
    assert safetensors.read(Path("a/adapter_model.safetensors"))[1]["step"] == "3"


@pytest.mark.parametrize(("words", "expected"), [
    (["", "--n", "3"], "the prompt is empty"), (["x " * 200], "the model reads 96 at a time"),
    (["x", "--system", "be kind"], "--system goes with --chat"), (["x", "--system", ""], "--system goes with --chat"),
    (["x", "--top-p", "0"], "top_p must be above 0"),
    (["x", "--adapter", "absent"], "absent"), (["x", "--n", "-1"], "n must be a whole number"),
])
def test_what_cannot_be_generated(base, desk, capsys, words, expected):
    status, out, err = run(capsys, "generate", "--model", base, *words)
    assert status == 2 and not out and expected in err and err.count("\n") == 1


@real
def test_a_real_language_model_learns_in_ten_steps(desk, capsys):
    colours = ["red", "blue", "green", "black"]
    rows = [{"prompt": f"The {a} box holds {b} balls. How many?\nAnswer:", "completion": f" {b}"}
            for a in colours for b in range(2, 12)]
    Path("boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = run(capsys, "tune", "--model", "smollm2", "--data", "boxes.jsonl", "--out", "a", "--steps", 10)
    losses = [float(line.split("validation ")[1].split()[0]) for line in err.splitlines() if "validation" in line]
    assert status == 0 and losses[-1] < 0.3 < losses[0]
    _, text, _ = run(capsys, "generate", "--model", "smollm2", "--adapter", "a", "The old box holds 7 balls. How many?\n"
                     "Answer:", "--n", 8)
    assert text.strip() == "7"
