"""Other layouts to one DreamVideo file, and the retention branch's start. Weights stream: one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.config import MODELSCOPE, PAPER, ModelConfig, RetentionConfig, UNetConfig
from ..models.layers import Operations, TemporalConvLayer, TemporalSelfAttention
from ..models.retention import ImageRetention
from ..models.unet import UNet, is_temporal
from .checkpoint import PARTS, Checkpoint, CheckpointError, check_weights, load_checkpoint, read_file, save_checkpoint
from .diagnosis import MODELSCOPE_UNET, SD1, SD2, Kind, describe_kind, is_pickle, kind_of
from .original_names import as_linear, diffusers_name
from .sources import open_model, read_pickle
from .tensor_files import LazyTensors

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Layout:
    """A U-Net under original names: what it becomes, the prefix of its names, and whether it has temporal layers."""

    unet: UNetConfig
    prefix: str = ""
    temporal: bool = False


# Stable Diffusion 1 has 8 heads at every width; 2 has 64 channels a head, like ModelScope.
_SD1_UNET = replace(PAPER.unet, cross_attention_dim=768, num_attention_heads=8)
LAYOUTS: dict[Kind, Layout] = {
    MODELSCOPE_UNET: Layout(MODELSCOPE.unet, temporal=True),
    SD1: Layout(_SD1_UNET, "model.diffusion_model."),
    SD2: Layout(PAPER.unet, "model.diffusion_model."),
}


def convert(
    source: Path,
    target: Path,
    dtype: torch.dtype | None = None,
    prediction_type: str | None = None,
    parts: Container[str] = PARTS,
    on_tensor: Progress | None = None,
) -> Checkpoint:
    """Write any source as one DreamVideo file, and return what it holds.

    Sources are what `open_model` opens, the original ModelScope U-Net (.pth, read as weights only) and Stable Diffusion 1
    and 2 image checkpoints. The image models gain the paper's temporal layers, at the identity: they change nothing until
    they are trained. `prediction_type` corrects a source that does not say it.
    """
    checkpoint = _open_any(source)
    if prediction_type is not None:
        schedule = replace(checkpoint.config.schedule, prediction_type=prediction_type)
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, schedule=schedule))
    checkpoint = checkpoint.only(parts)
    if not checkpoint.parts:
        raise CheckpointError(f"{source.name} has none of the parts that are asked for")
    save_checkpoint(target, checkpoint, dtype, on_tensor)
    return checkpoint


def init_retention(
    source: Path, target: Path, fusion: str = "add", dtype: torch.dtype | None = None, on_tensor: Progress | None = None
) -> Checkpoint:
    """Write `source` with a retention branch at the paper's start: a copy of the encoder that has no effect yet."""
    checkpoint = open_model(source, pickles=True)
    if "retention" in checkpoint.parts:
        raise CheckpointError(f"{source.name} has a retention branch already; train it with `dreamvideo train`")
    if "unet" not in checkpoint.parts or checkpoint.is_overlay():
        raise CheckpointError(f"{source.name} has no U-Net to copy; give a text-to-video model")
    retention = RetentionConfig(fusion)
    parts = {**checkpoint.parts, "retention": _start_of_branch(checkpoint, retention)}
    started = Checkpoint(replace(checkpoint.config, retention=retention), parts)
    save_checkpoint(target, started, dtype, on_tensor)
    return started


def _open_any(source: Path) -> Checkpoint:
    if source.is_dir():
        return open_model(source, pickles=True)
    if not source.is_file():
        raise CheckpointError(f"{source}: there is no such file")
    if is_pickle(source):
        return _from_original(LazyTensors.of(read_pickle(source)), source.name)
    tensors, text = read_file(source)
    return _from_original(tensors, source.name) if text is None else load_checkpoint(source)


def _from_original(tensors: LazyTensors, name: str) -> Checkpoint:
    """The U-Net alone of a file that has it under original names."""
    layout = LAYOUTS.get(kind_of(tensors))
    if layout is None:
        raise CheckpointError(f"{name}: {describe_kind(tensors)}")

    def ours(original: str) -> str | None:
        if not original.startswith(layout.prefix):
            return None
        return diffusers_name(original.removeprefix(layout.prefix), layout.unet.layers_per_block, layout.temporal)

    unet = tensors.renamed(ours).changed(as_linear)
    if not layout.temporal:
        unet |= LazyTensors.of(_identity_layers(layout.unet))
    config = ModelConfig(unet=layout.unet, retention=None, sampling=MODELSCOPE.sampling)
    return check_weights(Checkpoint(config, {"unet": unet}, name))


def _identity_layers(config: UNetConfig) -> dict[str, Tensor]:
    """Fresh temporal layers that change nothing: what ends each of them is zero."""
    unet = UNet(config, Operations(device="meta"))
    temporal = [module for name, module in unet.named_modules() if is_temporal(name)]
    _draw(temporal)
    for module in temporal:
        if isinstance(module, (TemporalConvLayer, TemporalSelfAttention)):
            module.zero()
    return {name: tensor for name, tensor in unet.state_dict().items() if is_temporal(name)}


def _start_of_branch(checkpoint: Checkpoint, config: RetentionConfig) -> LazyTensors:
    branch = ImageRetention(checkpoint.config.unet, config, Operations(device="meta"))
    _draw([module for name, module in branch.named_modules() if name.startswith(ImageRetention.OWN)])
    branch.initialise()
    unet, state = checkpoint.parts["unet"], branch.state_dict()
    dtype = unet["conv_in.weight"].dtype
    fresh = {name: tensor.to(dtype) for name, tensor in state.items() if not tensor.is_meta}
    return LazyTensors.of(unet).renamed(lambda name: name if name in state else None) | LazyTensors.of(fresh)


def _draw(modules: Iterable[nn.Module]) -> None:
    """Give modules that were made without memory their own fresh weights, the same ones every time."""
    torch.manual_seed(0)
    for module in modules:
        module.to_empty(device="cpu", recurse=False)
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
