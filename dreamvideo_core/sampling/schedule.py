"""The noise schedule, what the network predicts, and DDIM (arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def in_interval(timestep: float, start: float, end: float) -> bool:
    """Whether a timestep lies between two shares of the noise schedule: 0 is timestep 999, 1 is timestep 0."""
    progress = 1 - timestep / (TIMESTEPS - 1)
    # Sampling timesteps are whole and counted from 999: the last one of an interval must not fall out of it.
    return start - 1 / TIMESTEPS <= progress <= end + 1 / TIMESTEPS


class Diffusion:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) e, with Stable Diffusion's scaled-linear betas.

    Tensors are (B, ...); their timesteps, 0 to 999, are (B,) or an int for all, of which nothing is sent to their device.
    """

    def __init__(self, prediction_type: str = "epsilon"):
        self.prediction_type = prediction_type
        betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        alphas_cumprod = (1 - betas).cumprod(0)
        self._roots = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()

    def _coefficients(self, timesteps: Tensor | int, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        if isinstance(timesteps, int):
            return self._roots[0][timesteps].item(), self._roots[1][timesteps].item()
        # Some devices have no float64: cast before they go there.
        shape = -1, *[1] * (like.ndim - 1)
        signal, sigma = (root.to(like.dtype).to(like.device)[timesteps].view(shape) for root in self._roots)
        return signal, sigma

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        signal, sigma = self._coefficients(timesteps, clean)
        return signal * clean + sigma * noise

    def trace(self, clean: Tensor) -> Tensor:
        """What the noisiest timestep has left of clean latents, 0.07 of them. Noise alone stands for a clip of mean zero."""
        return self.add_noise(clean, torch.zeros_like(clean), TIMESTEPS - 1)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        """What the network is trained to give: the noise, or v = sqrt(abar) e - sqrt(1 - abar) z_0."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._coefficients(timesteps, clean)
        return signal * noise - sigma * clean

    def split(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor | int) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction stands for."""
        signal, sigma = self._coefficients(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - sigma * prediction) / signal, prediction
        return signal * noisy - sigma * prediction, sigma * noisy + signal * prediction

    def prediction(self, noisy: Tensor, clean: Tensor, timesteps: Tensor | int) -> Tensor:
        """The reverse of `split`: what the network would have to say for these clean latents."""
        signal, sigma = self._coefficients(timesteps, noisy)
        return self.target(clean, (noisy - signal * clean) / sigma, timesteps)

    def timesteps(self, steps: int) -> list[int]:
        """`steps` timesteps, spaced from the noisiest downwards (ComfyUI's "simple" scheduler takes the same)."""
        if not 1 <= steps <= TIMESTEPS:
            raise ValueError(f"steps is {steps}; allowed: 1 to {TIMESTEPS}")
        return [TIMESTEPS - 1 - int(i * TIMESTEPS / steps) for i in range(steps)]

    def ddim_step(self, noisy: Tensor, prediction: Tensor, timestep: int, following: int | None) -> Tensor:
        """Eq. 12 with eta = 0: from `timestep` to `following`, or to the clean latents where that is None."""
        clean, noise = self.split(noisy, prediction, timestep)
        return clean if following is None else self.add_noise(clean, noise, following)

    def ddim(self, predict: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int) -> Iterator[Tensor]:
        """Sample from `noise`; yields the latents after every step, the clean ones last."""
        latents, timesteps = noise, self.timesteps(steps)
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            latents = self.ddim_step(latents, predict(latents, timestep), timestep, following)
            yield latents
