"""OpenCLIP's two encoders under their own names, to transformers' names.

OpenCLIP has one matrix for the queries, keys and values of a layer, transformers has three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ..models.config import TextConfig, VisionConfig
from .tensor_files import LazyTensors

_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_VISION = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # sic
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",
}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_JOINED = re.compile(r"attn\.in_proj_(weight|bias)")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
# What a text encoder has for the whole text, and its mask of words to come.
_UNUSED = {"text_projection", "logit_scale", "attn_mask"}


def text_encoder(state: LazyTensors, config: TextConfig) -> LazyTensors:
    """The text half, without the layers behind the `num_hidden_layers` that are used: Stable Diffusion 2 leaves out the last.

    Names that are not known stay as they are, here and in `image_encoder`.
    """

    def is_used(name: str) -> bool:
        layer = _LAYER.fullmatch(name)
        return name not in _UNUSED and (layer is None or int(layer[1]) < config.num_hidden_layers)

    return _encoder(state.renamed(lambda name: name if is_used(name) else None), _TEXT, "text_model")


def image_encoder(state: LazyTensors, config: VisionConfig) -> LazyTensors:
    """The vision half, with its projection."""
    return _encoder(state, _VISION, "vision_model").changed(_as_linear)


def _encoder(state: LazyTensors, names: Mapping[str, str], root: str) -> LazyTensors:
    def renamed(name: str) -> str | None:
        layer = _LAYER.fullmatch(name)
        if layer is None:
            return names.get(name, name)
        if _JOINED.fullmatch(layer[2]):
            return None
        module, _, kind = layer[2].rpartition(".")
        return f"{root}.encoder.layers.{layer[1]}.{_IN_LAYER.get(module, module)}.{kind}"

    whole = state.renamed(renamed)
    for number in range(len(_PROJECTIONS)):
        whole |= _projection(state, root, number)
    return whole


def _projection(state: LazyTensors, root: str, number: int) -> LazyTensors:
    """The queries' matrices and biases (0), the keys' (1) or the values' (2) of all layers."""

    def renamed(name: str) -> str | None:
        layer = _LAYER.fullmatch(name)
        joined = layer and _JOINED.fullmatch(layer[2])
        return joined and f"{root}.encoder.layers.{layer[1]}.self_attn.{_PROJECTIONS[number]}.{joined[1]}"

    def third(name: str, tensor: Tensor) -> Tensor:
        return tensor.tensor_split(3)[number] if tensor.ndim else tensor

    return state.renamed(renamed).changed(third)


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """OpenCLIP multiplies by its projection from the right."""
    return tensor.t() if name == _VISION["proj"] and tensor.ndim == 2 else tensor
