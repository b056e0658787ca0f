"""Guided steps: the evaluations that a step needs, with what they share computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from ..models.config import ModelConfig
from ..models.unet import Encoding, Residuals
from .guidance import Evaluation, Guidance, rescale_guidance
from .reuse import EveryNth, Kept, Row
from .schedule import NoiseSchedule

_TOGETHER = 2**17  # values of latents whose evaluations are a batch on a GPU; with more that takes memory and gains nothing


class Passes(Protocol):
    """What guidance calls of a model; `DreamVideo` has it, and a host's model may."""

    config: ModelConfig

    def image_map(self, image: Tensor) -> Tensor: ...
    def encode(self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Encoding: ...
    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals: ...
    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor: ...
    def parameters(self) -> Iterator[Tensor]: ...


class GuidedModel:
    """The weighted sum of evaluations for fixed conditions: one encode per text and step, conv_s once for all steps.

    `images` holds the image of each kind of evaluation, (B, 3, H, W): the given one and the empty one. A model without
    a branch needs none. The branch runs in every `retention_every`-th step, and its residuals are used again until the next of
    these; an evaluation that a step is the first to need has its own made. `together` has the evaluations in one batch: faster
    for few latents on a GPU, where None chooses it, and slower on a CPU.
    """

    def __init__(
        self,
        model: Passes,
        texts: dict[bool, Tensor],
        images: dict[bool, Tensor],
        guidance: Guidance,
        retention_every: int = 1,
        together: bool | None = None,
        **given: bool,
    ):
        """`given` are `has_text` and `has_image` of `Guidance.weights`."""
        self.model, self.texts, self.images, self.guidance, self.given = model, texts, images, guidance, given
        self.diffusion = NoiseSchedule(model.config.schedule)
        self.step, self.together = 0, together
        self.maps: Kept[Tensor] = Kept()
        self.residuals: EveryNth[Kept[Residuals]] = EveryNth(retention_every)

    def __call__(self, latents: Tensor, timestep: int) -> Tensor:
        """The guided prediction for latents (B, T, C, H, W) at one timestep."""
        if self.together is None:
            self.together = latents.device.type != "cpu" and latents.numel() <= _TOGETHER
        weights = self.guidance.weights(timestep, **self.given)
        timesteps = torch.full((len(latents),), timestep, device=latents.device)
        encodings: Kept[Encoding] = Kept()
        results: dict[Evaluation, Tensor] = {}
        for some in self._batches(list(weights)):
            results |= self._evaluated(some, latents, timesteps, encodings)
        self.step += 1
        guided = sum(weight * results[evaluation] for evaluation, weight in weights.items())
        return self._rescaled(guided, results[max(results)], latents, timestep)

    def _batches(self, evaluations: list[Evaluation]) -> list[list[Evaluation]]:
        return [evaluations] if self.together else [[evaluation] for evaluation in evaluations]

    def _evaluated(
        self, evaluations: list[Evaluation], latents: Tensor, timesteps: Tensor, encodings: Kept[Encoding]
    ) -> dict[Evaluation, Tensor]:
        encoding = self._encoding(evaluations, latents, timesteps, encodings)
        residuals = self._residuals(evaluations, latents, timesteps) if self.images else None
        made = self.model.decode(encoding, residuals).to(latents.dtype)
        clips = rearrange(made, "(n b t) c h w -> n b t c h w", n=len(evaluations), t=latents.shape[1])
        return dict(zip(evaluations, clips, strict=True))

    def _encoding(
        self, evaluations: list[Evaluation], latents: Tensor, timesteps: Tensor, encodings: Kept[Encoding]
    ) -> Encoding:
        texts = [e.text for e in evaluations]

        def make(numbers: list[int]) -> list[Encoding]:
            text = torch.cat([self.texts[texts[number]] for number in numbers])
            made = self.model.encode(*_repeated(latents, timesteps, len(numbers)), text, latents.shape[1])
            return made.chunk(len(numbers))

        # Evaluations come text by text: no more are kept than these need.
        return Encoding.join(encodings.get([Row(text) for text in texts], make, most=len(set(texts))))

    def _residuals(self, evaluations: list[Evaluation], latents: Tensor, timesteps: Tensor) -> Residuals:
        def make(numbers: list[int]) -> list[Residuals]:
            some = [evaluations[number] for number in numbers]
            maps, text = torch.cat([self._map(e.image) for e in some]), torch.cat([self.texts[e.text] for e in some])
            frames, times = _repeated(latents, timesteps, len(some))
            return self.model.retain(frames, maps, times, text, latents.shape[1]).chunk(len(some))

        kept = Kept() if self.residuals.every == 1 else self.residuals.at(self.step)
        return Residuals.join(kept.get([Row(evaluation) for evaluation in evaluations], make))

    def _map(self, image: bool) -> Tensor:
        return self.maps.get([Row(image)], lambda _: [self.model.image_map(self.images[image])])[0]

    def _rescaled(self, guided: Tensor, conditional: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """Predictions rescaled as the clean latents that they stand for, which is how samplers' patches see them."""
        if not self.guidance.rescale:
            return guided
        cleans = (self.diffusion.split(latents, x, timestep)[0] for x in (guided, conditional))
        return self.diffusion.prediction(latents, rescale_guidance(*cleans, self.guidance.rescale), timestep)


def _repeated(latents: Tensor, timesteps: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Frames ((N B T), C, H, W) and timesteps (N B,) for N evaluations of the same latents."""
    return rearrange(latents.expand(times, *latents.shape), "n b t c h w -> (n b t) c h w"), timesteps.repeat(times)
