"""The text side: a CLIP text encoder through transformers, and CLIP's own vocabulary.

transformers is imported where it is needed: it takes a second, which ComfyUI's start, with its own encoders, need not wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..common.checks import check_text
from .config import TextConfig

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

TOKENIZER = Path(__file__).parents[1] / "assets" / "tokenizer"
START_TOKEN, END_TOKEN = 49406, 49407
TEXT_TOKENS = 75  # that a text may have, between start and end
_END = "<|endoftext|>"
_WORD_SCALE = 0.05  # about where training leaves the words of the small world
_ONE_AT_A_TIME = Lock()  # the tokenizer fails where threads use it at once
_PREFIX = "text_model."  # in files, as in diffusers and ComfyUI; newer transformers have dropped it


@cache
def tokenizer() -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(str(TOKENIZER / "vocab.json"), str(TOKENIZER / "merges.txt"), pad_token=_END)


def tokenize(texts: Sequence[str], pad_token_id: int = END_TOKEN) -> Tensor:
    """Token ids (B, 77), cut or filled up with `pad_token_id`."""
    for text in texts:
        check_text("a text", text)
    settings = {"padding": "max_length", "max_length": TEXT_TOKENS + 2, "truncation": True, "return_tensors": "pt"}
    with _ONE_AT_A_TIME:
        batch = tokenizer()(list(texts), **settings)
    return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, pad_token_id)


def count_tokens(text: str) -> int:
    """How many tokens a text has; what goes beyond `TEXT_TOKENS` is cut by `tokenize`."""
    check_text("a text", text)
    with _ONE_AT_A_TIME:
        return len(tokenizer()(text)["input_ids"]) - 2


class TextEncoder(nn.Module):
    """Texts to (B, 77, D): CLIP's last hidden states after the final layer norm, as Stable Diffusion 1 uses them."""

    def __init__(self, config: TextConfig):
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.model = CLIPTextModel(CLIPTextConfig(**vars(config), bos_token_id=START_TOKEN, eos_token_id=END_TOKEN))

    @torch.no_grad()
    def initialise(self, texts: Sequence[str] = ()) -> TextEncoder:
        """Start the words of `texts` at random and every other at zero.

        A word that training never meets stays at zero, says nothing, and needs no room in a file. Words that it does meet
        must not start alike: what tells them apart would be learned very late (docs/notes/training.md).
        """
        words = self.model.get_input_embeddings().weight
        nn.init.zeros_(words)
        if texts:
            known = tokenize(texts).unique()
            words[known] = torch.randn(len(known), words.shape[1]) * _WORD_SCALE
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens).last_hidden_state

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        return self(tokenize(texts, self.pad_token_id).to(self.model.device))

    def file_state(self) -> dict[str, Tensor]:
        """Weights under the names that a checkpoint has for them."""
        return {_PREFIX + k.removeprefix(_PREFIX): v for k, v in self.model.state_dict().items() if "position_ids" not in k}

    def load_file_state(self, state: dict[str, Tensor]) -> None:
        named_with_prefix = any(k.startswith(_PREFIX) for k in self.model.state_dict())
        self.model.load_state_dict({k if named_with_prefix else k.removeprefix(_PREFIX): v for k, v in state.items()})
