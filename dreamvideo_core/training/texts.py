"""The cache of captions, as tokens or as encodings, beside the latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..common.checks import InputError
from ..models.text_encoder import TextEncoder, tokenize
from .cache import ALONE, CachedRows, Processes, fill_cache

TOKENS, ENCODINGS = "tokens", "encodings"


@dataclass(frozen=True)
class CachedTexts:
    """Row `rows[text]` holds a text's tokens (77,), or its encoding (77, D) in float16; `kind` is TOKENS or ENCODINGS."""

    kind: str
    values: CachedRows
    rows: Mapping[str, int]

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The rows of B texts, (B, 77) or (B, 77, D), under their kind."""
        return {self.kind: self.values[[self.rows[text] for text in texts]]}


def cached_texts(
    folder: Path, captions: Sequence[str], encoder: TextEncoder, name: str | None, processes: Processes = ALONE
) -> CachedTexts:
    """Load the cache of these captions and of the empty text below `folder`, after computing what it lacks.

    For a frozen encoder, `name` names its weights, and encodings are cached. For one that is trained, `name` is None, and
    tokens are cached.
    """
    texts = list(dict.fromkeys(["", *captions]))
    kind = TOKENS if name is None else ENCODINGS
    digest = hashlib.blake2b(json.dumps(texts).encode(), digest_size=6).hexdigest()
    folder = folder / f"texts-{digest}-{f'tokens{encoder.pad_token_id}' if name is None else name}"

    def compute(rows: range) -> tuple[dict[str, Tensor], dict[str, str]]:
        some = texts[rows.start : rows.stop]
        return {kind: tokenize(some, encoder.pad_token_id) if name is None else _encode(some, encoder)}, {}

    files = fill_cache(folder, len(texts), compute, processes)
    values = CachedRows([load_file(path)[kind] for _, path in files])
    return CachedTexts(kind, values, {text: row for row, text in enumerate(texts)})


def _encode(texts: Sequence[str], encoder: TextEncoder) -> Tensor:
    encodings = encoder.encode(texts).half().cpu()
    if not torch.isfinite(encodings).all():
        raise InputError("the text encoder gives encodings that are no numbers or too large for float16: check its file")
    return encodings
