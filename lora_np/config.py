"""LoraConfig: what to adapt and how, in the words of PEFT."""

import re
from dataclasses import dataclass, field, replace

from .support.checks import check_int, check_number, expect


@dataclass(frozen=True)
class LoraConfig:
    """What to adapt and how; the field names are those of PEFT's LoraConfig.

    r: the rank of the update. lora_alpha: the update is scaled by lora_alpha / r, or by
    lora_alpha / sqrt(r) with use_rslora (Kalajdzievski 2023). Keep lora_alpha when you change r, and the learning rate
    can stay; with lora_alpha = r the best rate falls as r grows. target_modules: names of Linear layers, each the end
    of a path ("q_proj": in every layer) or a whole path, or "all-linear": all but the head.
    lora_dropout: in [0, 1), on the input of A.
    rank_pattern, alpha_pattern: {regular expression for the end of a path: r or lora_alpha there}; the first
    that matches counts. seed: for A and dropout.
    """

    r: int = 8
    lora_alpha: float = 8
    target_modules: tuple = ("q_proj", "v_proj")
    lora_dropout: float = 0.0
    use_rslora: bool = False
    rank_pattern: dict = field(default_factory=dict)
    alpha_pattern: dict = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        check_int("LoraConfig", r=self.r)
        check_int("LoraConfig", least=0, seed=self.seed)
        check_number("LoraConfig", lora_alpha=self.lora_alpha)
        check_number("LoraConfig", below=1, lora_dropout=self.lora_dropout)
        names = tuple(self.target_modules) if isinstance(self.target_modules, (tuple, list, set)) else (
            self.target_modules,)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f'LoraConfig: target_modules must be names such as ["q_proj", "v_proj"], got {names}')
        if not names:
            raise ValueError("LoraConfig: target_modules is empty, so nothing would be adapted")
        object.__setattr__(self, "target_modules", names)
        for pattern, check, name in ((self.rank_pattern, check_int, "r"),
                                     (self.alpha_pattern, check_number, "lora_alpha")):
            expect("LoraConfig", pattern, dict, '; a pattern is written as {"layers.0.self_attn.q_proj": 4}')
            for value in pattern.values():
                check("LoraConfig", **{name: value})
        for key in (*self.rank_pattern, *self.alpha_pattern):
            try:
                re.compile(key)
            except (TypeError, re.error) as error:
                raise ValueError(f"LoraConfig: the pattern {key!r} is not a regular expression: {error}") from None

    @property
    def scaling(self):
        """alpha / r, or alpha / sqrt(r) with use_rslora."""
        return self.lora_alpha / (self.r ** 0.5 if self.use_rslora else self.r)

    def at(self, path):
        """The config of the layer at a path: without patterns, its own r and lora_alpha in their place."""
        return replace(self, r=first_match(self.rank_pattern, path, self.r), rank_pattern={},
                       lora_alpha=first_match(self.alpha_pattern, path, self.lora_alpha), alpha_pattern={})


def first_match(pattern, path, default):
    """The value of the first key of a pattern that matches a path or the end of one, as PEFT matches them."""
    return next((value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", path)), default)
