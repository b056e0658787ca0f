"""What the model is told of every caption, made once and kept on disk beside the latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..models.text_encoder import TextEncoder, tokenize
from .cache import ALONE, Makers, Rows, make_blocks

TOKENS, ENCODINGS = "tokens", "encodings"


@dataclass(frozen=True)
class CachedTexts:
    """Row `rows[text]` holds a text's tokens (77,), or its encoding (77, D) in float16; `kind` says which."""

    kind: str
    values: Rows
    rows: Mapping[str, int]

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return {self.kind: self.values[[self.rows[text] for text in texts]]}


def cached_texts(
    folder: Path, captions: Sequence[str], encoder: TextEncoder, name: str | None, makers: Makers = ALONE
) -> CachedTexts:
    """Load the cache of these captions and of the empty text below `folder`, making what it lacks.

    `name` is that of a frozen encoder's weights, whose encodings are kept; with None, for one that is trained, tokens are.
    """
    texts = list(dict.fromkeys(["", *captions]))
    kind = TOKENS if name is None else ENCODINGS
    names = hashlib.blake2b(json.dumps(texts).encode(), digest_size=6).hexdigest()
    folder = folder / f"texts-{names}-{f'tokens{encoder.pad_token_id}' if name is None else name}"

    def make(block: range) -> tuple[dict[str, Tensor], dict[str, str]]:
        told = texts[block.start : block.stop]
        return {kind: tokenize(told, encoder.pad_token_id) if name is None else _encoded(told, encoder)}, {}

    blocks = make_blocks(folder, len(texts), make, makers)
    return CachedTexts(kind, Rows([load_file(path)[kind] for _, path in blocks]), {text: n for n, text in enumerate(texts)})


def _encoded(texts: Sequence[str], encoder: TextEncoder) -> Tensor:
    encodings = encoder.encode(texts).half().cpu()
    if not torch.isfinite(encodings).all():
        raise FloatingPointError(
            "the text encoder gives encodings that are no numbers or too large for float16: check its file"
        )
    return encodings
