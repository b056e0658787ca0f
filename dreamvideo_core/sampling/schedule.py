"""The noise schedule, what the network predicts, and DDIM (arXiv 2010.02502)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..common.checks import check_number
from ..models.config import TIMESTEPS, ScheduleConfig

_COSINE_OFFSET = 0.008  # s in Eq. 17 of arXiv 2102.09672
_LARGEST_BETA = 0.999
_SCALED_TIMESTEPS = 400  # over which the clean latents' factor falls to its last value


def in_interval(timestep: float, start: float, end: float) -> bool:
    """Whether a timestep lies between two shares of the noise schedule: 0 is timestep 999, 1 is timestep 0."""
    progress = 1 - timestep / (TIMESTEPS - 1)
    # Sampling timesteps are whole and counted from 999: the last one of an interval must not fall out of it.
    return start - 1 / TIMESTEPS <= progress <= end + 1 / TIMESTEPS


def alphas_cumprod(config: ScheduleConfig) -> Tensor:
    """abar of every timestep, (1000,) in float64: the share of the clean latents in the variance."""
    alphas = (1 - _betas(config)).cumprod(0)
    return _zero_terminal_snr(alphas) if config.rescale_betas_zero_snr else alphas


def clean_scales(config: ScheduleConfig) -> Tensor:
    """s of every timestep, (1000,) in float64: what clean latents are multiplied by, all ones in most models."""
    scales = torch.full((config.num_train_timesteps,), config.base_scale, dtype=torch.float64)
    scales[:_SCALED_TIMESTEPS] = torch.linspace(1, config.base_scale, _SCALED_TIMESTEPS, dtype=torch.float64)
    return scales


def _betas(config: ScheduleConfig) -> Tensor:
    total = config.num_train_timesteps
    if config.beta_schedule == "scaled_linear":
        return torch.linspace(config.beta_start**0.5, config.beta_end**0.5, total, dtype=torch.float64) ** 2
    times = torch.arange(total + 1, dtype=torch.float64) / total
    cosines = ((times + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2).cos() ** 2
    return (1 - cosines[1:] / cosines[:-1]).clamp(max=_LARGEST_BETA)


def _zero_terminal_snr(alphas: Tensor) -> Tensor:
    """sqrt(abar) shifted to end at 0 and scaled to begin where it did (arXiv 2305.08891, Algorithm 1)."""
    roots = alphas.sqrt()
    return ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2


class NoiseSchedule:
    """z_t = sqrt(abar_t) s_t z_0 + sqrt(1 - abar_t) e, for clean latents z_0 and noise e.

    s_t is 1 unless the configuration has a `base_scale`: then s_t z_0 takes the place of z_0 everywhere.
    Tensors are (B, ...); their timesteps, 0 to 999, are (B,) or an int for all, of which nothing is sent to their device.
    """

    def __init__(self, config: ScheduleConfig):
        self.config = config
        alphas = alphas_cumprod(config)
        self._tables = alphas.sqrt(), (1 - alphas).sqrt(), clean_scales(config)

    def _coefficients(self, timesteps: Tensor | int, like: Tensor) -> tuple[Tensor, ...] | tuple[float, ...]:
        """sqrt(abar_t), sqrt(1 - abar_t) and s_t."""
        if isinstance(timesteps, int):
            return tuple(table[timesteps].item() for table in self._tables)
        # Some devices have no float64: cast before they go there.
        shape = -1, *[1] * (like.ndim - 1)
        return tuple(table.to(like.dtype).to(like.device)[timesteps].view(shape) for table in self._tables)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        signal, sigma, scale = self._coefficients(timesteps, clean)
        return signal * scale * clean + sigma * noise

    def terminal_signal(self, clean: Tensor) -> Tensor:
        """What the noisiest timestep keeps of clean latents: 0.07 of them, or nothing with zero terminal SNR.

        Sampling that starts from noise alone tells the model that the clip's mean is zero.
        """
        return self.add_noise(clean, torch.zeros_like(clean), self.config.num_train_timesteps - 1)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        """What the network is trained to give: the noise, or v = sqrt(abar) e - sqrt(1 - abar) s z_0 (arXiv 2202.00512)."""
        if self.config.prediction_type == "epsilon":
            return noise
        signal, sigma, scale = self._coefficients(timesteps, clean)
        return signal * noise - sigma * scale * clean

    def split(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor | int) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction stands for."""
        signal, sigma, scale = self._coefficients(timesteps, noisy)
        if self.config.prediction_type == "epsilon":
            return (noisy - sigma * prediction) / (signal * scale), prediction
        return (signal * noisy - sigma * prediction) / scale, sigma * noisy + signal * prediction

    def prediction(self, noisy: Tensor, clean: Tensor, timesteps: Tensor | int) -> Tensor:
        """The reverse of `split`: what the network would have to say for these clean latents."""
        signal, sigma, scale = self._coefficients(timesteps, noisy)
        return self.target(clean, (noisy - signal * scale * clean) / sigma, timesteps)

    def timesteps(self, steps: int) -> list[int]:
        """`steps` timesteps, the noisiest first; raises `InputError` for more of them than there are."""
        total, spacing = self.config.num_train_timesteps, self.config.timestep_spacing
        offset = self.config.steps_offset if spacing == "leading" else 0
        check_number("steps", steps, 1, total - offset)
        if spacing == "leading":
            return [i * (total // steps) + offset for i in reversed(range(steps))]
        if spacing == "trailing":
            return [round(total - i * (total / steps)) - 1 for i in range(steps)]
        return [total - 1 - int(i * total / steps) for i in range(steps)]

    def ddim_step(
        self,
        noisy: Tensor,
        prediction: Tensor,
        timestep: int,
        following: int | None,
        eta: float = 0.0,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """Eq. 12: from `timestep` to `following`, or to the clean latents where that is None.

        `eta` (Eq. 16) puts `fresh` noise in the place of some of that which is left, all of it in the variance of DDPM at 1.
        """
        clean, noise = self.split(noisy, prediction, timestep)
        if following is None:
            return clean
        if eta:
            share = eta * self._renewed(timestep, following)
            noise = math.sqrt(1 - share**2) * noise + share * fresh
        return self.add_noise(clean, noise, following)

    def _renewed(self, timestep: int, following: int) -> float:
        """sigma_t / sqrt(1 - abar) of the timestep that follows, where eta is 1: the share of the noise that is drawn anew."""
        signal, sigma, _ = (table[timestep].item() for table in self._tables)
        return math.sqrt(1 - (signal / self._tables[0][following].item()) ** 2) / sigma

    def ddim(
        self,
        predict: Callable[[Tensor, int], Tensor],
        noise: Tensor,
        steps: int,
        eta: float = 0.0,
        draw: Callable[[], Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """Sample from `noise`; yields the latents after every step, the clean ones last.

        With `eta` each step but the last calls `draw` for fresh noise of the latents' shape.
        """
        latents, timesteps = noise, self.timesteps(steps)
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            said = predict(latents, timestep)
            fresh = draw() if eta and following is not None else None
            latents = self.ddim_step(latents, said, timestep, following, eta, fresh)
            yield latents
