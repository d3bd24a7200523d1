"""Train a small tokenizer of each kind with the tokenizers library, and note what Transformers' AutoTokenizer makes of
hard texts with it, for the tests, which then need neither:

    python -m tests.reference.make_tokenizers        (needs tokenizers, transformers; takes seconds)

tokenizers/<kind>/          gpt2, smollm (which lacks some bytes), qwen2, llama3, opt (vocab.json and merges.txt)
tokenizers/expected.json    {"texts": [...], kind: {"ids": special tokens read as such, "plain": as text, "added":
                            with what the tokenizer puts around, each a text of numbers for each of the texts}}
"""

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from lora_np.tokenizer import SPLITS
from tests.texts import WORDS, texts

FOLDER = Path(__file__).parent / "tokenizers"
CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
          "You are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
          "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|im_start|>assistant\n' }}{% endif %}")
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
PATTERN = lambda name: pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(SPLITS[name][0]), behavior="isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(pre_tokenizer, special=(), normalizer=None, alphabet=BYTES, size=640, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special], initial_alphabet=alphabet,
                                  show_progress=False)
    words = [word for word in WORDS if not word.startswith("<") and "\r" not in word]
    tokenizer.train_from_iterator([Path(tokenizers.__file__).read_text(), " ".join(words * 5), *texts(500, seed=1)],
                                  trainer)
    return tokenizer


def gpt2():
    return train(LEVEL, ["<|endoftext|>"]), {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}


def smollm():
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), LEVEL])
    lacking = {"\u0104", "\u0106", "\u0113", "\u0114"}  # the bytes 4, 6, 13 and 14 in hexadecimal, as in SmolLM2
    tokenizer = train(digits, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                      alphabet=[c for c in BYTES if c not in lacking])
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>",
                "pad_token": "<|im_end|>", "chat_template": CHATML.replace("assistant.", "assistant named Small.")}
    return tokenizer, settings


def qwen2():
    tokenizer = train(PATTERN("qwen2"), normalizer=normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML}


def llama3():
    tokenizer = train(PATTERN("llama3"), ignore_merges=True)
    given = json.loads(tokenizer.to_str())
    del given["model"]["merges"][::3]  # so that merging cannot reach every token
    kept = []
    reached = set(BYTES)
    for left, right in given["model"]["merges"]:
        if left in reached and right in reached:
            kept.append([left, right])
            reached.add(left + right)
    given["model"]["merges"] = kept
    tokenizer = Tokenizer.from_str(json.dumps(given))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>"])
    first = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
                                      special_tokens=[("<|begin_of_text|>", first)])])
    return tokenizer, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
                       "chat_template": "{% for m in messages %}<|start_header_id|>{{ m['role'] }}{% endfor %}"}


def opt():
    tokenizer = train(LEVEL, ["<s>", "<pad>", "</s>", "<unk>"])
    token = lambda text: {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True, "rstrip": False,
                          "single_word": False}
    return tokenizer, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False,
                       "bos_token": token("</s>"), "eos_token": token("</s>"), "unk_token": token("</s>"),
                       "pad_token": "<pad>"}


def save(name, tokenizer, settings):
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    if name == "opt":
        tokenizer.model.save(str(folder))
    else:
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    for file, value in (("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast",
                                                   "clean_up_tokenization_spaces": False, **settings}),
                        ("config.json", {"model_type": "opt" if name == "opt" else "llama"})):
        (folder / file).write_text(json.dumps(value, indent=1) + "\n")
    return AutoTokenizer.from_pretrained(folder)


def main():
    hard = texts(60, seed=2)
    expected = {"texts": hard}
    for make in (gpt2, smollm, qwen2, llama3, opt):
        tokenizer = save(make.__name__, *make())
        words = lambda **options: [" ".join(map(str, tokenizer.encode(text, **options))) for text in hard]  # noqa: B023
        expected[make.__name__] = {"ids": words(add_special_tokens=False), "added": words(),
                                   "plain": words(add_special_tokens=False, split_special_tokens=True)}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


if __name__ == "__main__":
    main()
