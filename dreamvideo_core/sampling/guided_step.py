"""Guided steps: the evaluations that a step needs, with what they share computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from ..common.batches import join
from ..models.config import ModelConfig
from ..models.image_conditions import NO_IMAGE, ImageConditions
from ..models.unet import Encoding, Residuals
from .guidance import Evaluation, Guidance, rescale_guidance
from .reuse import EveryNth, Kept, Row
from .schedule import NoiseSchedule

_FEW_VALUES = 2**17  # of latents; with more, one batch of all evaluations takes memory on a GPU and gains nothing


class Passes(Protocol):
    """What guidance calls of a model; `DreamVideo` has it, and a host's model may."""

    config: ModelConfig

    def image_map(self, image: Tensor) -> Tensor: ...
    def encode(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int, image: ImageConditions = NO_IMAGE
    ) -> Encoding: ...
    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals: ...
    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor: ...
    def parameters(self) -> Iterator[Tensor]: ...


class GuidedModel:
    """Eq. 5 for fixed conditions: the sum of w_e f_e over evaluations e, with f_(t,i) = decode(encode(z, t), retain(z, i, t)).

    `texts` and `images` hold what each kind of evaluation is
    given: text (B, N, D), the prompt and the negative one; image (B, 3, H, W) for the retention branch, the given one and the
    empty one. A model without a branch needs no images; where its encoder sees the picture itself, `conditions` hold that.

    Evaluations with the same text and conditions share an encoding, and those with the same image share conv_s, in all steps.
    The branch runs in every `retention_every`-th step; its residuals are used again until the next of these. `together` runs
    the evaluations of a step as one batch. On a CPU that is slower, on a GPU faster for few latents, so None decides by both.
    """

    def __init__(
        self,
        model: Passes,
        texts: dict[bool, Tensor],
        images: dict[bool, Tensor],
        guidance: Guidance,
        retention_every: int = 1,
        together: bool | None = None,
        conditions: dict[bool, ImageConditions] | None = None,
        **given: bool,
    ):
        """`given` are `has_text` and `has_image` of `Guidance.weights`."""
        self.conditions = conditions
        self.model, self.texts, self.images, self.guidance, self.given = model, texts, images, guidance, given
        self.diffusion = NoiseSchedule(model.config.schedule)
        self.step, self.together = 0, together
        self.maps: Kept[Tensor] = Kept()
        self.residuals: EveryNth[Kept[Residuals]] = EveryNth(retention_every)

    def __call__(self, latents: Tensor, timestep: int) -> Tensor:
        """The guided prediction for latents (B, T, C, H, W) at one timestep."""
        weights = self.guidance.weights(timestep, **self.given)
        results = self._evaluate(list(weights), latents, timestep)
        guided = sum(weight * results[evaluation] for evaluation, weight in weights.items())
        self.step += 1
        return self._rescaled(guided, results[max(results)], latents, timestep)

    def _evaluate(self, evaluations: list[Evaluation], latents: Tensor, timestep: int) -> dict[Evaluation, Tensor]:
        """f(text?, image?) for each evaluation, (B, T, C, H, W): in one batch, or one after the other."""
        few = latents.device.type != "cpu" and latents.numel() <= _FEW_VALUES
        together = few if self.together is None else self.together
        results: dict[Evaluation, Tensor] = {}
        encodings: Kept[Encoding] = Kept()
        for some in [evaluations] if together else [[evaluation] for evaluation in evaluations]:
            frames = self._evaluate_batch(some, latents, timestep, encodings).to(latents.dtype)
            clips = rearrange(frames, "(n b t) c h w -> n b t c h w", n=len(some), t=latents.shape[1])
            results |= zip(some, clips, strict=True)
        return results

    def _evaluate_batch(
        self, evaluations: list[Evaluation], latents: Tensor, timestep: int, encodings: Kept[Encoding]
    ) -> Tensor:
        """N evaluations of the same B clips, ((N B T), C, H, W)."""
        num_frames = latents.shape[1]

        def inputs(numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
            """Frames ((N B T), C, H, W), timesteps (N B,) and texts (N B, L, D) of evaluations by their numbers."""
            repeated = latents.expand(len(numbers), *latents.shape)
            timesteps = torch.full((len(numbers) * len(latents),), timestep, device=latents.device)
            text = torch.cat([self.texts[evaluations[number].text] for number in numbers])
            return rearrange(repeated, "n b t c h w -> (n b t) c h w"), timesteps, text

        def encode(numbers: list[int]) -> Encoding:
            if self.conditions is None:
                return self.model.encode(*inputs(numbers), num_frames)
            image = join([self.conditions[evaluations[number].image] for number in numbers])
            return self.model.encode(*inputs(numbers), num_frames, image)

        def retain(numbers: list[int]) -> Residuals:
            frames, timesteps, text = inputs(numbers)
            maps = torch.cat([self._map(evaluations[number].image) for number in numbers])
            return self.model.retain(frames, maps, timesteps, text, num_frames)

        encoded = [Row(e.text if self.conditions is None else e) for e in evaluations]
        encoding = encodings.get(encoded, encode, most=len(set(encoded)))  # they are in order of their text
        if not self.images:
            return self.model.decode(encoding)
        kept = self.residuals.at(self.step)
        residuals = kept.get([Row(e) for e in evaluations], retain, most=None if self.residuals.every > 1 else 0)
        return self.model.decode(encoding, residuals)

    def _map(self, image: bool) -> Tensor:
        return self.maps.get([Row(image)], lambda _: self.model.image_map(self.images[image]))

    def _rescaled(self, guided: Tensor, conditional: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """Rescaled as predictions, or as the clean latents that they stand for, which is how samplers' patches see them."""
        if not self.guidance.rescale:
            return guided
        if self.model.config.sampling.rescaled == "prediction":
            return rescale_guidance(guided, conditional, self.guidance.rescale)
        cleans = (self.diffusion.split(latents, x, timestep)[0] for x in (guided, conditional))
        return self.diffusion.prediction(latents, rescale_guidance(*cleans, self.guidance.rescale), timestep)
