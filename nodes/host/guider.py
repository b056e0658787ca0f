"""Dual-condition guidance as a GUIDER: Eq. 5 over the evaluations that need to run, patches acting on the whole."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.conds
import comfy.samplers
import torch
from einops import rearrange
from torch import Tensor

from ...dreamvideo_core.guidance import Evaluation, Guidance, rescale_guidance
from .conditions import FRAMES_KEY, IMAGE_KEY, IMAGE_PREFIX
from .model import DreamVideoModel, check_branch
from .sharing import EVERY_KEY

_EMPTY = Evaluation(text=False, image=False)


class Guider(comfy.samplers.CFGGuider):
    """Derives f(t,i), f(t,0), f(0,i) and f(0,0) from the two conditionings that RetentionEncode gives."""

    def set_guidance(self, guidance: Guidance, retention_every: int = 1) -> None:
        self.guidance, self.retention_every = guidance, retention_every

    def set_conds(self, positive: list, negative: list) -> None:
        if not isinstance(self.model_patcher.model, DreamVideoModel):
            raise ValueError(
                f"model is a {type(self.model_patcher.model).__name__}, not a DreamVideo model; connect the MODEL of Load "
                "DreamVideo, with or without LoRAs behind it."
            )
        image = next((options[IMAGE_KEY] for _, options in positive if IMAGE_KEY in options), None)
        check_branch(self.model_patcher.model.config, image)
        self.given = {"has_text": not _same_text(positive, negative), "has_image": image is not None}
        self.num_frames = next((options.get(FRAMES_KEY) for _, options in positive), None)
        image_options = next((_image_options(options) for _, options in positive if IMAGE_KEY in options), {})
        conds = {Evaluation(True, True): positive, Evaluation(False, True): _with_image(negative, image_options)}
        conds |= {Evaluation(e.text, False): _without_image(conditioning) for e, conditioning in conds.items()}
        self.inner_set_conds({_name(evaluation): conditioning for evaluation, conditioning in conds.items()})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: int | None = None):  # noqa: B006
        """The guided denoised latents. Written as empty + scale (effective - empty), which is the same sum, so that
        functions patched into classifier-free guidance see the whole of it."""
        weights = self.guidance.weights(float(self.inner_model.model_sampling.timestep(timestep).max()), **self.given)
        if model_options.get("disable_cfg1_optimization", False):
            weights.setdefault(_EMPTY, 0.0)
        options = {**model_options.get("transformer_options", {}), EVERY_KEY: self.retention_every}
        model_options = {**model_options, "transformer_options": options}
        evaluations = list(weights)
        conds = [self.conds[_name(e)] for e in evaluations]
        results = dict(zip(evaluations, self._evaluate(conds, x, timestep, model_options), strict=True))
        scale = 1 - weights.get(_EMPTY, 0.0)
        if abs(scale) < 1e-9:  # the two-term form has no such sum: hand it over whole
            scale, effective = 1.0, sum(weights[e] * results[e] for e in evaluations)
        else:
            effective = sum(weights[e] * results[e] for e in evaluations if e != _EMPTY) / scale
        empty = results.get(_EMPTY, torch.zeros_like(x))
        conditional = results[max(evaluations)]  # the one with the most conditions
        return self._combine(effective, empty, scale, conditional, x, timestep, model_options)

    def _evaluate(self, conds: list, x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> list[Tensor]:
        custom = model_options.get("sampler_calc_cond_batch_function")
        if custom:
            args = {"conds": conds, "input": x, "sigma": timestep, "model": self.inner_model, "model_options": model_options}
            return custom(args)
        return comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)

    def _combine(
        self,
        effective: Tensor,
        empty: Tensor,
        scale: float,
        conditional: Tensor,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> Tensor:
        conds = [self.conds[_name(Evaluation(True, True))], self.conds[_name(_EMPTY)]]
        out = [effective, empty]
        for function in model_options.get("sampler_pre_cfg_function", []):
            out = function(
                {"conds": conds, "conds_out": out, "cond_scale": scale, "timestep": timestep, "input": x, "sigma": timestep,
                 "model": self.inner_model, "model_options": model_options}
            )  # fmt: skip
        if self.guidance.rescale:
            patches = [partial(self._rescale, conditional), *model_options.get("sampler_post_cfg_function", [])]
            model_options = {**model_options, "sampler_post_cfg_function": patches}
        return comfy.samplers.cfg_function(
            self.inner_model, *out, scale, x, timestep, model_options=model_options, cond=conds[0], uncond=conds[1]
        )

    def _rescale(self, conditional: Tensor, args: dict[str, Any]) -> Tensor:
        frames = self.num_frames or len(conditional)
        guided, conditional = (rearrange(x, "(b t) c h w -> b t c h w", t=frames) for x in (args["denoised"], conditional))
        return rescale_guidance(guided, conditional, self.guidance.rescale).flatten(0, 1)


def _name(evaluation: Evaluation) -> str:
    return f"text={evaluation.text:d} image={evaluation.image:d}"


def _image_options(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k.startswith(IMAGE_PREFIX)}


def _without_image(conditioning: list) -> list:
    return [[text, {k: v for k, v in options.items() if not k.startswith(IMAGE_PREFIX)}] for text, options in conditioning]


def _with_image(conditioning: list, image_options: dict[str, Any]) -> list:
    """The conditioning with these image options where it has none of its own."""
    return [[text, options if IMAGE_KEY in options else options | image_options] for text, options in conditioning]


def _same_text(positive: list, negative: list) -> bool:
    """Whether both say the same to the model: texts, and areas, masks, hooks or schedules with them."""
    return comfy.conds.is_equal(
        [[text.cpu(), options] for text, options in _without_image(positive)],
        [[text.cpu(), options] for text, options in _without_image(negative)],
    )
