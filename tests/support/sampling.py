"""Sampling in ComfyUI inside this process."""

from typing import Any

import torch
from comfy_host.in_process import InProcessComfyUI


def sample(host: InProcessComfyUI, model: Any, conditioned: tuple, **options: Any) -> torch.Tensor:
    """Latents from DualCFGSampler for what RetentionEncode gave, in two steps unless `options` say otherwise."""
    positive, negative, latent = conditioned
    inputs = {
        "seed": 3, "steps": 2, "text_scale": 2.0, "image_scale": 1.5, "order": "text_first", "sampler": "ddim",
        "scheduler": "simple", "denoise": 1.0, "rescale": 0.0, **options,
    }  # fmt: skip
    return host.call("DualCFGSampler", model=model, positive=positive, negative=negative, latent=latent, **inputs)[0]["samples"]
