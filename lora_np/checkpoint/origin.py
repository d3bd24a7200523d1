"""What comes with a model beside its weights, and goes on with it when it is saved: special ids, tokenizer files."""

from contextlib import suppress
from dataclasses import dataclass, field

from .atomic import json_bytes
from .tokenizers import KINDS, TOKENIZER_FILES, from_gguf, load_tokenizer, save_tokenizer, tokenizer_kind

IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
GENERATION = "generation_config.json"
ENDS = ("eos", "eot", "eom")  # GGUF's tokens that end a text, or a turn of a conversation


@dataclass
class Origin:
    """What was found beside the weights of a model.

    ids: those of IDS, as config.json has them. files: {name: bytes} of a folder. metadata: of a GGUF file, of its
    tokenizer. tokenizer: its kind, as tokenizer_kind has it. tokens: the ids that it has, where they are known.
    """

    ids: dict
    files: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    tokenizer: str | None = None
    tokens: tuple | None = None

    def handed_on(self, tokenizer=None):
        """{name: bytes} of the files to save with the model; another tokenizer takes the place of its own."""
        generation = {name: content for name, content in self.files.items() if name == GENERATION}
        if self.metadata:
            ends = [self.metadata.get(f"tokenizer.ggml.{end}_token_id") for end in ENDS]
            ends = [*dict.fromkeys(i for i in ends if i is not None)]
            generation[GENERATION] = json_bytes({**self.ids, "eos_token_id": ends})
            if self.tokenizer == "bpe" and tokenizer is None:
                tokenizer = from_gguf(self.metadata)
        return {**generation, **(self.files if tokenizer is None else save_tokenizer(tokenizer))}


NONE = Origin(dict.fromkeys(IDS))  # of a model that was not loaded


def of_folder(folder, given):
    """The Origin of a model in a Transformers folder with this config.json."""
    names = (GENERATION, *TOKENIZER_FILES, "chat_template.json")
    origin = Origin({name: given[name] for name in IDS if name in given},
                    {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()})
    with suppress(ValueError, FileNotFoundError):  # a tokenizer that cannot be read is no reason not to load the model
        origin.tokenizer = tokenizer_kind(folder)
        origin.tokens = origin.tokenizer and tuple(load_tokenizer(folder).tokens)
    return origin


def of_gguf(path, given, metadata):
    """The Origin of a model in a GGUF file. Raises ValueError for a way to cut up text that is not known."""
    kind, pre = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind == "gpt2" and pre not in (*KINDS, None):
        raise ValueError(f"{path}: tokenizer.ggml.pre is {pre!r}; supported here: {', '.join(KINDS)}")
    origin = Origin({name: given.get(name) for name in IDS}, tokenizer="bpe" if kind == "gpt2" else kind,
                    metadata={key: value for key, value in metadata.items() if key.startswith("tokenizer.")})
    with suppress(ValueError):
        origin.tokens = tuple(from_gguf(metadata).tokens)
    return origin
