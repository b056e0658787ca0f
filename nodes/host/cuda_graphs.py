"""A model's passes as CUDA graphs, where Load DreamVideo is asked for them and nothing changes or moves its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from torch import Tensor

from ...dreamvideo_core.models.unet import UNet
from ...dreamvideo_core.sampling.cuda_graphs import GraphedModel
from ...dreamvideo_core.sampling.guided_step import Passes
from .messages import log
from .patches import PatchedPasses, patches_attention, patches_skips
from .sharing import renew_in_every_run

KEY = "dreamvideo_graphs"


@dataclass(eq=False)  # no dictionary, which ComfyUI would copy
class RunGraphs:
    """The graphs of one run, or what hinders them."""

    model: GraphedModel | None = None
    hindrance: str | None = None

    def hinder(self, reason: str) -> None:
        if reason != self.hindrance:
            log.warning("no CUDA graphs for this model, for %s: its passes are launched one by one", reason)
        self.model, self.hindrance = None, reason


def install(patcher: ModelPatcher) -> None:
    """Have every run of a model record its passes, on a device where graphs are `available`."""
    renew_in_every_run(patcher, KEY, RunGraphs)  # graphs end with a run: ComfyUI could not take back their memory
    patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _in_a_step)


def passes_of(unet: UNet, transformer_options: dict[str, Any], latents: Tensor) -> Passes:
    """What runs a U-Net's passes on these latents: graphs where this run has some, other nodes' patches where there are any."""
    graphs: RunGraphs | None = transformer_options.get(KEY)
    blocks = unet.attention_blocks
    patched = patches_skips(transformer_options), patches_attention(transformer_options, blocks)
    if graphs is not None and graphs.model is not None and graphs.model.model is unet:
        if not any(patched):
            return graphs.model
        graphs.hinder(f"another node has put a patch into its {'decoder' if patched[0] else 'attention'}")
    return PatchedPasses(unet, blocks, transformer_options, latents) if any(patched) else unet


def _in_a_step(executor, model, conds, x_in, timestep, model_options):
    graphs: RunGraphs | None = model_options.get("transformer_options", {}).get(KEY)
    if graphs is not None:
        reason = _hindrance(model, model_options)
        if reason is not None:
            graphs.hinder(reason)
        elif graphs.hindrance is None and graphs.model is None:
            graphs.model = GraphedModel(model.diffusion_model)
    return executor(model, conds, x_in, timestep, model_options)


def _hindrance(model: BaseModel, options: dict[str, Any]) -> str | None:
    """Why graphs would not do in this step what the model's passes do."""
    if model.model_lowvram:
        return "it is not whole in the GPU's memory"
    if model.current_patcher.hook_patches:
        return "hooks change its weights during a run"
    if TORCH_COMPILE_KWARGS in options:
        return "it is compiled"
    return None
