"""Guided steps: the evaluations that a step needs, with what they share computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from .config import ModelConfig
from .diffusion import Diffusion
from .guidance import Evaluation, Guidance, rescale_guidance
from .model import Encoding, Residuals

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
    a branch needs none. The branch runs in every `retention_every`-th step; in between, its residuals are those of the
    step where it last ran. `together` has the evaluations in one batch: faster for few latents on a GPU, where None chooses
    it, and slower on a CPU.
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
        self.diffusion = Diffusion(model.config.prediction_type)
        self.maps: dict[bool, Tensor] = {}
        self.step, self.retention_every, self.together = 0, retention_every, together
        self.residuals: dict[Evaluation, Residuals] = {}

    def __call__(self, latents: Tensor, timestep: int) -> Tensor:
        """The guided prediction for latents (B, T, C, H, W) at one timestep."""
        if self.together is None:
            self.together = latents.device.type != "cpu" and latents.numel() <= _TOGETHER
        weights = self.guidance.weights(timestep, **self.given)
        timesteps = torch.full((len(latents),), timestep, device=latents.device)
        encodings: dict[bool, Encoding] = {}
        results: dict[Evaluation, Tensor] = {}
        for some in self._batches(list(weights)):
            if not encodings.keys() >= {e.text for e in some}:
                encodings.clear()  # evaluations come text by text
                encodings |= self._encoded(some, latents, timesteps)
            residuals = self._residuals(some, latents, timesteps) if self.images else None
            made = self.model.decode(Encoding.join([encodings[e.text] for e in some]), residuals).to(latents.dtype)
            clips = rearrange(made, "(n b t) c h w -> n b t c h w", n=len(some), t=latents.shape[1])
            results |= zip(some, clips, strict=True)
        self.step += 1
        guided = sum(weight * results[evaluation] for evaluation, weight in weights.items())
        return self._rescaled(guided, results[max(results)], latents, timestep)

    def _batches(self, evaluations: list[Evaluation]) -> list[list[Evaluation]]:
        return [evaluations] if self.together else [[evaluation] for evaluation in evaluations]

    def _encoded(self, evaluations: list[Evaluation], latents: Tensor, timesteps: Tensor) -> dict[bool, Encoding]:
        texts = list(dict.fromkeys(e.text for e in evaluations))
        text = torch.cat([self.texts[key] for key in texts])
        made = self.model.encode(*_repeated(latents, timesteps, len(texts)), text, latents.shape[1])
        return dict(zip(texts, made.chunk(len(texts)), strict=True))

    def _residuals(self, evaluations: list[Evaluation], latents: Tensor, timesteps: Tensor) -> Residuals:
        due = self.step % self.retention_every == 0
        made = self._retained([e for e in evaluations if due or e not in self.residuals], latents, timesteps)
        if self.retention_every > 1:
            self.residuals |= made
        return Residuals.join([made[e] if e in made else self.residuals[e] for e in evaluations])

    def _retained(self, evaluations: list[Evaluation], latents: Tensor, timesteps: Tensor) -> dict[Evaluation, Residuals]:
        if not evaluations:
            return {}
        maps = torch.cat([self._map(e.image) for e in evaluations])
        text = torch.cat([self.texts[e.text] for e in evaluations])
        frames, timesteps = _repeated(latents, timesteps, len(evaluations))
        made = self.model.retain(frames, maps, timesteps, text, latents.shape[1])
        return dict(zip(evaluations, made.chunk(len(evaluations)), strict=True))

    def _map(self, image: bool) -> Tensor:
        if image not in self.maps:
            self.maps[image] = self.model.image_map(self.images[image])
        return self.maps[image]

    def _rescaled(self, guided: Tensor, conditional: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """Predictions rescaled as the clean latents that they stand for, which is how samplers' patches see them."""
        if not self.guidance.rescale:
            return guided
        cleans = (self.diffusion.split(latents, x, timestep)[0] for x in (guided, conditional))
        return self.diffusion.prediction(latents, rescale_guidance(*cleans, self.guidance.rescale), timestep)


def _repeated(latents: Tensor, timesteps: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Frames ((N B T), C, H, W) and timesteps (N B,) for N evaluations of the same latents."""
    return rearrange(latents.expand(times, *latents.shape), "n b t c h w -> (n b t) c h w"), timesteps.repeat(times)
