"""What other nodes hang on a model: patches of attention and the decoder's skips act as in ComfyUI's U-Net, others are named.

`transformer_options` is ComfyUI's: "patches" has functions by their kind, "patches_replace" has them by kind and block, and
"optimized_attention_override" is a function for every attention of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...dreamvideo_core.models.layers import Attend, Attention, Place, run_attention
from ...dreamvideo_core.models.unet import Encoding, MergeSkip, Residuals, UNet, concatenate
from .messages import say
from .sharing import uncompiled

_SKIPS = "output_block_patch"
_REPLACED = ("attn1", "attn2")  # self-attention and attention to the text
_ATTENTION = tuple(f"{layer}{when}_patch" for layer in _REPLACED for when in ("", "_output"))
_OVERRIDE = "optimized_attention_override"

Block = tuple[str, int]  # "input", "middle" or "output", and its number there


def patches_skips(transformer_options: dict[str, Any]) -> bool:
    """Whether other nodes have put something between the decoder's own features and its skips."""
    return bool(transformer_options.get("patches", {}).get(_SKIPS))


def patches_attention(transformer_options: dict[str, Any], blocks: Sequence[Block]) -> bool:
    """Whether other nodes have put something into the attention of a U-Net with transformers in these blocks."""
    patches = transformer_options.get("patches", {})
    return (
        _OVERRIDE in transformer_options
        or any(patches.get(kind) for kind in _ATTENTION)
        or any(kind in _REPLACED and block[:2] in blocks for kind, block in _replaced(transformer_options))
    )


def _replaced(transformer_options: dict[str, Any]) -> Iterator[tuple[str, tuple]]:
    replaced = transformer_options.get("patches_replace", {})
    return ((kind, block) for kind, functions in replaced.items() for block in functions)


class PatchedPasses:
    """A U-Net's passes, for one call of it, with what other nodes have put into its attention and its skips."""

    def __init__(self, unet: UNet, blocks: Sequence[Block], transformer_options: dict[str, Any], latents: Tensor):
        self.unet, self.options = unet, transformer_options
        if patches_attention(transformer_options, blocks):
            self.run = PatchedAttention(blocks, {**transformer_options, "original_shape": list(latents.shape)})
            self.call = torch.compiler.disable(_call)  # what calls other nodes' functions, new ones each time
        else:
            self.run, self.call = run_attention, _call

    @uncompiled
    def encode(self, *inputs: Any) -> Encoding:
        return self.call(self.unet.encode, *inputs, run=self.run)

    @uncompiled
    def retain(self, *inputs: Any) -> Residuals:
        run = self.run.of_the_branch() if _OVERRIDE in self.options else run_attention
        return self.call(self.unet.retain, *inputs, run=run)

    @uncompiled
    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor:
        return self.call(self.unet.decode, encoding, residuals, patched_merge(self.options), run=self.run)


@uncompiled
def _call(function: Callable, *inputs: Any, **options: Any) -> Any:
    return function(*inputs, **options)


@dataclass(frozen=True, eq=False)
class PatchedAttention:
    """Runs attention layers as `run_attention` does, with other nodes' functions before, behind and in place of attention.

    Those are given what ComfyUI's own U-Net gives them: frames as rows of a batch, the text for each of them.
    """

    blocks: Sequence[Block]  # that have a transformer, in their order
    options: dict[str, Any]

    def of_the_branch(self) -> PatchedAttention:
        """For the retention branch, which has blocks of its own: of all this there is only the override."""
        return PatchedAttention((), self.options)

    def __call__(
        self, layer: Attention, x: Tensor, context: Tensor | None, place: Place | None, image: Tensor | None = None
    ) -> Tensor:
        block = None if place is None else (place.part, place.number)
        if block not in self.blocks:
            return run_attention(_attending(layer, self.options, image), x, context, image=image)
        index = self.blocks.index(block)
        options = {**self.options, "block": block, "block_index": place.depth, "transformer_index": index}
        kind = "attn1" if context is None else "attn2"
        patches, replaced = (options.get(name, {}) for name in ("patches", "patches_replace"))
        before, behind = patches.get(f"{kind}_patch", ()), patches.get(f"{kind}_output_patch", ())
        functions = replaced.get(kind, {})
        instead = functions.get((*block, place.depth), functions.get(block))
        if not (before or behind or instead):
            return run_attention(_attending(layer, options, image), x, context, image=image)

        told = {name: value for name, value in options.items() if name not in ("patches", "patches_replace")}
        told |= {"n_heads": layer.heads, "dim_head": layer.to_q.out_features // layer.heads, "attn_precision": None}
        context = x if context is None else context.repeat_interleave(len(x) // len(context), 0)
        value = context
        for patch in before:
            x, context, value = patch(x, context, value, told)
        attend = _attend(options) if instead is None else lambda query, key, value, heads: instead(query, key, value, told)
        seen = {} if image is None else {"image": image, "attend_image": _attend(options)}
        x = layer(x, context, value, attend, **seen)
        for patch in behind:
            x = patch(x, told)
        return x


def _attend(options: dict[str, Any]) -> Attend:
    return partial(optimized_attention, transformer_options=options)


def _attending(layer: Attention, options: dict[str, Any], image: Tensor | None) -> Callable[..., Tensor]:
    """The layer with attention that is told of `options`, that to image tokens too."""
    attend = _attend(options)
    return partial(layer, attend=attend) if image is None else partial(layer, attend=attend, attend_image=attend)


def patched_merge(transformer_options: dict[str, Any]) -> MergeSkip:
    """How the decoder merges its own features and a skip, with those patches between."""
    patches, numbers = transformer_options.get("patches", {}).get(_SKIPS, []), count()
    if not patches:
        return concatenate

    def merge(hidden: Tensor, skip: Tensor) -> Tensor:
        options = {**transformer_options, "block": ("output", next(numbers))}
        hidden, skip = hidden.clone(), skip.clone()  # patches may write into them, and encodings are shared
        for patch in patches:
            hidden, skip = patch(hidden, skip, options)
        return concatenate(hidden, skip)

    return merge


def idle_patches(transformer_options: dict[str, Any], blocks: Sequence[Block]) -> list[str]:
    """The kinds of patches that a U-Net with transformers in these blocks has no place for, or none of their blocks."""
    kinds = {kind for kind, patches in transformer_options.get("patches", {}).items() if patches} - {_SKIPS, *_ATTENTION}
    replaced = list(_replaced(transformer_options))
    acting = {kind for kind, block in replaced if kind in _REPLACED and block[:2] in blocks}
    return sorted(kinds | {kind for kind, _ in replaced} - acting)


def say_idle_patches(transformer_options: dict[str, Any], blocks: Sequence[Block], said: list[str]) -> None:
    """Say on the node that is running which kinds of patches have no effect, but for what stands in `said`; then it does."""
    for kind in idle_patches(transformer_options, blocks):
        text = f"a node has put a patch of kind {kind!r} on the model; DreamVideo has no place for it: no effect"
        if text not in said:
            said.append(text)
            context = get_executing_context()
            say(context and context.node_id, text)


def check_no_control(control: object | None) -> None:
    """A ControlNet counts conditions by frames, this U-Net by clips: better a word than a shape error."""
    if control is not None:
        raise ValueError(
            "a ControlNet is attached to the conditioning, which DreamVideo's U-Net cannot take. Remove Apply ControlNet, or "
            "use it where the first image is made."
        )
