"""Dual-condition guidance as a GUIDER: Eq. 5 over the evaluations that need to run, patches acting on the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.conds
import comfy.samplers
import torch
from comfy.model_base import BaseModel
from einops import rearrange
from torch import Tensor

from ...dreamvideo_core.sampling.guidance import EMPTY, Evaluation, Guidance, rescale_guidance, two_terms
from .conditions import FRAMES_KEY, IMAGE_KEY, IMAGE_PREFIX
from .model import DreamVideoModel
from .pictures import check_takes_image
from .sharing import EVERY_KEY, RUN_KEY

PostCFG = Callable[[dict[str, Any]], Tensor]


class Guider(comfy.samplers.CFGGuider):
    """Derives f(t,i), f(t,0), f(0,i) and f(0,0) from the two conditionings that RetentionEncode gives."""

    def set_guidance(self, guidance: Guidance, retention_every: int = 1) -> None:
        self.guidance, self.retention_every = guidance, retention_every
        self.idle: list[str] = []  # what a run says of patches without an effect

    def set_conds(self, positive: list, negative: list) -> None:
        if not isinstance(self.model_patcher.model, DreamVideoModel):
            raise ValueError(
                f"model is a {type(self.model_patcher.model).__name__}, not a DreamVideo model; connect the MODEL of Load "
                "DreamVideo, with or without LoRAs behind it."
            )
        image_options = next((_image_options(o) for _, o in [*positive, *negative] if o.get(IMAGE_KEY) is not None), {})
        config = self.model_patcher.model.config
        check_takes_image(config, image_options.get(IMAGE_KEY))
        self.given = {"has_text": not _same_text(positive, negative), "has_image": bool(image_options)}
        self.remarks = []
        if config.unet.sees_image and self.retention_every > 1:
            self.remarks.append("retention_every has no effect: this model has no retention branch")
        self.num_frames = next((o[FRAMES_KEY] for _, o in [*positive, *negative] if o.get(FRAMES_KEY) is not None), None)
        with_image = {True: _with_image(positive, image_options), False: _with_image(negative, image_options)}
        conds = {Evaluation(text, True): conditioning for text, conditioning in with_image.items()}
        conds |= {Evaluation(text, False): _without_image(conditioning) for text, conditioning in with_image.items()}
        self.inner_set_conds({_name(evaluation): conditioning for evaluation, conditioning in conds.items()})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: int | None = None):  # noqa: B006
        """The guided denoised latents, as `two_terms`: functions patched into classifier-free guidance see the whole sum."""
        weights = self.guidance.weights(float(self.inner_model.model_sampling.timestep(timestep).max()), **self.given)
        if model_options.get("disable_cfg1_optimization", False):
            weights.setdefault(EMPTY, 0.0)
        options = {**model_options.get("transformer_options", {}), EVERY_KEY: self.retention_every}
        model_options = {**model_options, "transformer_options": options}
        self.idle = options[RUN_KEY].idle if RUN_KEY in options else []
        # ComfyUI's order: cond first, uncond (or None) second. Our further evaluations follow.
        most = max(weights)
        others = [e for e in weights if e not in (most, EMPTY)]
        uncond = self.conds[_name(EMPTY)] if EMPTY in weights and most != EMPTY else None
        conds = [self.conds[_name(most)], uncond, *(self.conds[_name(e)] for e in others)]
        with_most, empty, *rest = self._evaluate(conds, x, timestep, model_options)
        results = {EMPTY: empty, most: with_most, **dict(zip(others, rest, strict=True))}
        effective, scale = two_terms(weights, results)
        step = _Step(self.inner_model, x, timestep, model_options, conds[0], uncond, scale)
        functions = [partial(self._rescale, with_most)] if self.guidance.rescale else []
        return step.combined(effective, empty, [*functions, *step.seeing(with_most, empty)])

    def _evaluate(self, conds: list, x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> list[Tensor]:
        custom = model_options.get("sampler_calc_cond_batch_function")
        if not custom:
            return comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
        # Such a function is made for two conditions, as ComfyUI's own guider has; the others are evaluated beside it.
        two, others = conds[:2], conds[2:]
        args = {"conds": two, "input": x, "sigma": timestep, "model": self.inner_model, "model_options": model_options}
        results = list(custom(args))
        if others:
            results += comfy.samplers.calc_cond_batch(self.inner_model, others, x, timestep, model_options)
        return results

    def _rescale(self, conditional: Tensor, args: dict[str, Any]) -> Tensor:
        """`rescale_guidance` of what the model's configuration says: the clean latents, or the network's own predictions."""
        guided = args["denoised"]
        if self.model_patcher.model.config.sampling.rescaled == "clean_latents":
            return self._rescaled(guided, conditional)
        # Clean latents are affine in the prediction.
        x, calculate = args["input"], self.inner_model.model_sampling.calculate_denoised
        zero = calculate(args["sigma"], torch.zeros_like(x), x)
        slope = calculate(args["sigma"], torch.ones_like(x), x) - zero
        return zero + slope * self._rescaled((guided - zero) / slope, (conditional - zero) / slope)

    def _rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        frames = self.num_frames or len(conditional)
        guided, conditional = (rearrange(x, "(b t) c h w -> b t c h w", t=frames) for x in (guided, conditional))
        return rescale_guidance(guided, conditional, self.guidance.rescale).flatten(0, 1)


@dataclass(frozen=True)
class _Step:
    """A step of guidance as ComfyUI's functions for it see it: two conditions, and one scale between their results."""

    model: BaseModel
    x: Tensor
    sigma: Tensor
    model_options: dict[str, Any]
    cond: list[dict[str, Any]]
    uncond: list[dict[str, Any]] | None
    scale: float

    def seeing(self, cond: Tensor, uncond: Tensor) -> list[PostCFG]:
        """The model's post-CFG functions, which compare what the two conditions gave: they see these, not what was summed."""
        seen = {"cond_denoised": cond, "uncond_denoised": uncond, "model_options": self.model_options}
        functions = self.model_options.get("sampler_post_cfg_function", [])
        return [lambda args, function=function: function({**args, **seen}) for function in functions]

    def combined(self, cond: Tensor, uncond: Tensor, functions: list[PostCFG]) -> Tensor:
        """uncond + scale (cond - uncond), or what the model's functions make of it, with `functions` behind it."""
        out = [cond, uncond]
        for function in self.model_options.get("sampler_pre_cfg_function", []):
            out = function(
                {"conds": [self.cond, self.uncond], "conds_out": out, "cond_scale": self.scale, "timestep": self.sigma,
                 "input": self.x, "sigma": self.sigma, "model": self.model, "model_options": self.model_options}
            )  # fmt: skip
        return comfy.samplers.cfg_function(
            self.model, out[0], out[1], self.scale, self.x, self.sigma, cond=self.cond, uncond=self.uncond,
            model_options={**self.model_options, "sampler_post_cfg_function": functions},
        )  # fmt: skip


def _name(evaluation: Evaluation) -> str:
    return f"text={evaluation.text:d} image={evaluation.image:d}"


def _image_options(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k.startswith(IMAGE_PREFIX)}


def _without_image(conditioning: list) -> list:
    return [[text, {k: v for k, v in options.items() if not k.startswith(IMAGE_PREFIX)}] for text, options in conditioning]


def _with_image(conditioning: list, image_options: dict[str, Any]) -> list:
    """The conditioning with these image options where it has none of its own."""
    return [
        [text, options if options.get(IMAGE_KEY) is not None else options | image_options] for text, options in conditioning
    ]


def _same_text(positive: list, negative: list) -> bool:
    """Whether both say the same to the model: texts, and areas, masks, hooks or schedules with them."""
    return comfy.conds.is_equal(
        [[text.cpu(), options] for text, options in _without_image(positive)],
        [[text.cpu(), options] for text, options in _without_image(negative)],
    )
