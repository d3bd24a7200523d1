"""ChatML, the format of chats that SmolLM2 and Qwen were trained on: a conversation as ids.

    <|im_start|>system      the model's own default, or a message of the conversation
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    What is LoRA?<|im_end|>
    <|im_start|>assistant
    An update of low rank.<|im_end|>      to be predicted: this text and its end mark
"""

import re

import numpy as np

from ...support.notation import brief

START, END = "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant")
OTHERS = {"<|start_header_id|>": "Llama 3's", "<|im_sep|>": "Phi-4's", "[INST]": "Llama 2's or Mistral's",
          "<start_of_turn>": "Gemma's", "<|user|>": "Zephyr's or TinyLlama's", "<|start_of_role|>": "Granite's",
          "<｜User｜>": "DeepSeek's", "<|START_OF_TURN_TOKEN|>": "Command R's", "<|channel|>": "gpt-oss's",
          "reasoning_mode": "SmolLM3's", "### Instruction": "Alpaca's"}  # by what is found in no other's
DEFAULT_SYSTEM = re.compile(  # as far as the template has it written out
    r"<\|im_start\|>system(?:\n|\\n)((?:(?!<\||[{%}]\}|\{[{%]|['\"]\s*[+~]).)+)<\|im_end\|>"
    r"|\bset \w*system\w* = (?:'([^']+)'|\"([^\"]+)\")", re.DOTALL)


def chat_ids(messages, tokenizer, reply=False):
    """(ids (n,), target (n,)) of a conversation; target is True at what the assistant says and at its end marks.

    messages: a list of {"role": "system", "user" or "assistant", "content": text}. Contents are text: an <|im_end|> in
    them is no end. Without a system message the default of the tokenizer's chat_template comes first. reply: open a
    turn of the assistant at the end, for the model to go on with. Raises ValueError for another template or form, and
    for conversations to learn from where the template writes more into an answer than its text.
    """
    _check_messages(messages, reply)
    default, template = default_system(tokenizer), tokenizer.chat_template
    if "</think>" in template and not reply:
        raise ValueError("the chat template is Qwen3's, which puts thoughts before an answer; training on such "
                         "messages is not supported: give prompts and completions instead")
    begin = tokenizer.prefix or (tokenizer.bos_id,) * ("bos_token" in template and tokenizer.bos_id is not None)
    if default is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": default}, *messages]
    start, end = tokenizer.special[START], tokenizer.special[END]
    encode = lambda text: tokenizer.encode(text, special=False).tolist()
    parts = [([*begin], False)]
    for message in messages:
        if message["role"] == "assistant":
            parts.append(([start, *encode("assistant\n")], False))
            parts.append(([*encode(message["content"]), end], True))  # apart, as it is generated
        else:
            parts.append(([start, *encode(f"{message['role']}\n{message['content']}"), end], False))
        parts.append((encode("\n"), False))
    if reply:
        parts.append(([start, *encode("assistant\n")], False))
    return (np.array([i for ids, _ in parts for i in ids]),
            np.array([target for ids, target in parts for _ in ids]))


def default_system(tokenizer):
    """The system message that a ChatML template puts before a conversation without one, or None.

    Raises ValueError, with its name, for a template that is not ChatML, and where there is none.
    """
    template = tokenizer.chat_template
    if template is None:
        raise ValueError("this tokenizer has no chat template; messages need a model trained on chats (an Instruct "
                         "model), others take prompts, completions and texts")
    name = next((name for mark, name in OTHERS.items() if mark in template), None)
    if name or START not in template or END not in template:
        raise ValueError(f"the chat template is {name or 'unknown'}, which is not supported; ChatML is, with {START} "
                         f"and {END}. It begins {template[:60]!r}")
    if absent := [mark for mark in (START, END) if mark not in tokenizer.special]:
        raise ValueError(f"the chat template writes {absent[0]}, which is no control token of this tokenizer")
    literal = DEFAULT_SYSTEM.search(template)
    if literal is None:
        return None
    return re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], literal[literal.lastindex])


def _check_messages(messages, reply):
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list of at least one message, got {brief(messages)}")
    for n, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f'message {n} must be {{"role": ..., "content": text}}, got {brief(message)}')
        if message.get("role") not in ROLES:
            raise ValueError(f"message {n} has the role {message.get('role')!r}; expected one of {', '.join(ROLES)}")
        if not message["content"] and message["role"] != "system":
            raise ValueError(f"message {n}, of the {message['role']}, is empty")
    if not reply and not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no message is the assistant's, so there is nothing to learn")
