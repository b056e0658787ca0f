"""A model's passes as CUDA graphs, where Load DreamVideo is asked for them and nothing changes or moves its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ...dreamvideo_core.graphs import GraphedModel, Passes
from .messages import log
from .patches import skip_patches

KEY = "dreamvideo_graphs"
_COMPILED_KEY = "torch_compile_kwargs"  # comfy_api.torch_helpers leaves it in the options of a model


@dataclass(eq=False)  # no dictionary, which ComfyUI would copy
class RunGraphs:
    """The graphs of one run, or what hinders them."""

    model: GraphedModel | None = None
    hindrance: str | None = None

    def renew(self, model: BaseModel, options: dict[str, Any]) -> None:
        """Before every step: weights may have been moved since the last one."""
        hindrance = _hindrance(model, options)
        if hindrance is None:
            self.model = self.model or GraphedModel(model.diffusion_model)
            return
        if hindrance != self.hindrance:
            log.warning("no CUDA graphs for this model, for %s: its passes are launched one by one", hindrance)
        self.model, self.hindrance = None, hindrance


def install(patcher: ModelPatcher) -> None:
    """Have every run of a model record its passes, on a device where they `are_there`."""
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _in_a_run)
    patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _in_a_step)


def are_there(device: torch.device) -> bool:
    return device.type == "cuda"


def passes_of(unet: Passes, transformer_options: dict[str, Any]) -> Passes:
    """The graphs of a U-Net where this run has some, else itself."""
    graphs: RunGraphs | None = transformer_options.get(KEY)
    return graphs.model if graphs and graphs.model and graphs.model.model is unet else unet


def _in_a_run(executor, *args, **kwargs):
    # ComfyUI drops these options after the run, and the graphs with them, whose memory it could not take back.
    options = executor.class_obj.model_options
    options["transformer_options"] = {**options.get("transformer_options", {}), KEY: RunGraphs()}
    return executor(*args, **kwargs)


def _in_a_step(executor, model, conds, x_in, timestep, model_options):
    graphs: RunGraphs | None = model_options.get("transformer_options", {}).get(KEY)
    if graphs is not None:
        graphs.renew(model, model_options)
    return executor(model, conds, x_in, timestep, model_options)


def _hindrance(model: BaseModel, options: dict[str, Any]) -> str | None:
    """Why passes cannot be recorded, or not be replayed with what would be done to them now."""
    patcher = model.current_patcher
    if getattr(patcher, "is_dynamic", bool)() or model.model_lowvram:
        return "it is not whole in the GPU's memory"
    if patcher.hook_patches:
        return "hooks change its weights during a run"
    if _COMPILED_KEY in options:
        return "it is compiled"
    if skip_patches(options.get("transformer_options", {})):
        return "another node has put a patch into its decoder"
    return None
