"""What other nodes hang on a model: patches of the decoder's skips work (FreeU), others are named in the log, not ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...dreamvideo_core.model import Join, concatenate
from .messages import log

_SKIP_PATCHES = "output_block_patch"
_warned: set[str] = set()


def skip_patches(transformer_options: dict[str, Any]) -> list[Callable]:
    """The patches that other nodes have put between the decoder's own features and its skips."""
    return transformer_options.get("patches", {}).get(_SKIP_PATCHES, [])


def patched_join(transformer_options: dict[str, Any]) -> Join:
    """The decoder's join of its own features and a skip, with those patches between."""
    patches = skip_patches(transformer_options)
    if not patches:
        return concatenate

    def join(hidden: Tensor, skip: Tensor) -> Tensor:
        hidden, skip = hidden.clone(), skip.clone()  # patches may write into them, and encodings are shared
        for patch in patches:
            hidden, skip = patch(hidden, skip, transformer_options)
        return concatenate(hidden, skip)

    return join


def warn_of_idle_patches(transformer_options: dict[str, Any]) -> None:
    """Say once of each kind of patch that this U-Net has no place for it."""
    kinds = {*transformer_options.get("patches", {}), *transformer_options.get("patches_replace", {})} - {_SKIP_PATCHES}
    for kind in sorted(kinds - _warned):
        log.warning("a node has put a patch of kind %r on the model; DreamVideo has no place for it: no effect", kind)
        _warned.add(kind)


def check_no_control(control: object | None) -> None:
    """A ControlNet counts conditions by frames, this U-Net by clips: better a word than a shape error."""
    if control is not None:
        raise ValueError(
            "a ControlNet is attached to the conditioning, which DreamVideo's U-Net cannot take. Remove Apply ControlNet, or "
            "use it where the first image is made."
        )
