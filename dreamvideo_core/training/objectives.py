"""Objectives: a loss over seeded batches, and samples to look at and to measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from kornia.metrics import psnr
from PIL import Image
from torch import Tensor, nn

from ..evaluation.metrics import first_frame_ssim
from ..media.images import contact_sheet, from_uint8
from ..models.autoencoder import Autoencoder
from ..models.text_encoder import tokenize
from ..sampling.pipeline import Pipeline
from ..sprites import render_batch, sample_clip
from ..sprites.scene import seeded
from .cache import CachedRows
from .cuda_graphs import GraphedPasses
from .gradient_checkpointing import checkpoint_gradients
from .latents import LatentClips
from .recipe import Phase
from .texts import ENCODINGS, TOKENS, CachedTexts


@dataclass(frozen=True)
class Samples:
    """A contact sheet of fixed clips as the model generates them now, and figures measured on them by name."""

    sheet: Image.Image
    figures: Mapping[str, float] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A module whose forward pass takes a batch and gives scalar figures by name; `loss` is the one to minimise."""

    @abstractmethod
    def batch(self, number: int) -> dict[str, Tensor]:
        """Batch `number`, always the same. Several threads call this while the model is trained."""

    @abstractmethod
    def samples(self) -> Samples:
        """New samples of the present weights."""


def _edges(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.diff(dim=-1), image.diff(dim=-2)


class AutoencoderObjective(Objective):
    """Reconstruct frames (L1 + L2 + L1 of image gradients), with latents near zero mean and unit variance.

    A small penalty per channel holds these moments. Noise on the latents, the usual way, makes this training collapse.
    """

    MOMENTS_WEIGHT = 0.01
    CROP = 32  # pixels

    def __init__(self, autoencoder: Autoencoder, phase: Phase, seed: int):
        super().__init__()
        self.autoencoder = autoencoder
        self.phase, self.seed = phase, seed
        # Constants: the encoder learns to give latents at the model's scale.
        self.autoencoder.vae_scale.requires_grad_(False)
        self.autoencoder.vae_shift.requires_grad_(False)

    def batch(self, number: int) -> dict[str, Tensor]:
        """frames (B, 3, 32, 32), or smaller ones of smaller sizes."""
        return {"frames": self._crops(number)}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, the penalty on moments, and the reconstruction's PSNR in dB."""
        frames = batch["frames"]
        latents = self.autoencoder.encode(frames)
        restored = self.autoencoder.decode(latents).float()
        latents = (latents * self.autoencoder.vae_scale).float()
        l1, l2 = F.l1_loss(restored, frames), F.mse_loss(restored, frames)
        gradients = sum(F.l1_loss(a, b) for a, b in zip(_edges(restored), _edges(frames), strict=True))
        mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
        moments = mean.square().mean() + variance.clamp(min=1e-6).log().square().mean()
        loss = l1 + l2 + gradients + self.MOMENTS_WEIGHT * moments
        return {"loss": loss, "moments": moments, "psnr": psnr(restored, frames, 2.0)}

    @torch.no_grad()
    def samples(self) -> Samples:
        frames = self._frames("validation", 0)[:16].to(self.autoencoder.vae_scale.device)
        restored = self.autoencoder.decode(self.autoencoder.encode(frames)).float()
        return Samples(contact_sheet(rearrange([frames, restored], "k n c h w -> (n k) c h w"), columns=8))

    def _frames(self, split: str, number: int) -> Tensor:
        size = self.phase.batch_size  # for every size of frames: their crops are equally large
        height, width = self.phase.sizes[number % len(self.phase.sizes)]
        clips = [sample_clip(seeded(split, self.seed, number * size + i)) for i in range(size)]
        return render_batch(clips, num_frames=1, height=height, width=width)[:, 0]

    def _crops(self, number: int) -> Tensor:
        """One crop per scene, so that a batch has many scenes at the cost of a few whole frames."""
        rng = np.random.default_rng([self.seed, number])
        frames = self._frames("train", number)
        height, width = (min(self.CROP, n) for n in frames.shape[-2:])
        top, left = (rng.integers(0, n - min(self.CROP, n) + 1, len(frames)) for n in frames.shape[-2:])
        return torch.stack([f[:, y : y + height, x : x + width] for f, y, x in zip(frames, top, left, strict=True)])


class DiffusionObjective(Objective):
    """Predict noise (or v) on cached latents; text and image are dropped independently, as in the paper.

    The phase's `trainable` says what is trained: "unet" and "text_encoder" for a text-to-video model, "temporal" (the
    primary U-Net's temporal layers) and "retention" in the paper's phase. Without "retention" the branch is not run.

    By the phase's sizes (height, width), `clips` are the latents, and `hand_overs` the pictures that replace the first
    frame of some clips. `texts` is the cache of all captions, if there is one. With `graphed`, passes are CUDA graphs.
    Samples are of the held-out clips of the first size, else of `SAMPLES` clips that its source chooses.
    """

    SAMPLES = 4  # clips on a sheet, and generated at a time
    CACHED_TEXTS = 1 << 17  # whose tokens are cached; the small world has 70,560 sentences

    def __init__(
        self,
        pipeline: Pipeline,
        phase: Phase,
        clips: Mapping[tuple[int, int], LatentClips],
        seed: int,
        texts: CachedTexts | None = None,
        hand_overs: Mapping[tuple[int, int], CachedRows] | None = None,
        graphed: bool = False,
    ):
        super().__init__()
        self.model, self.text_encoder = pipeline.model, pipeline.text_encoder
        self.phase, self.clips, self.seed, self.texts, self.hand_overs = phase, clips, seed, texts, hand_overs
        self.with_image = "retention" in phase.trainable
        self._pipeline = [pipeline]  # in a list, so that its frozen autoencoder does not become a submodule
        first = clips[phase.sizes[0]]
        self._samples = first.source.samples(first.held_out or first.numbers[: self.SAMPLES])
        if phase.gradient_checkpointing:
            checkpoint_gradients(self.model)
        self._predict = GraphedPasses(self, self._pass) if graphed else self._pass
        self._tokens = lru_cache(self.CACHED_TEXTS)(lambda text: tokenize([text], self.text_encoder.pad_token_id)[0])
        self.requires_grad_(False)
        for parameter in self._trainable():
            parameter.requires_grad_(True)

    def batch(self, number: int) -> dict[str, Tensor]:
        """latents (B, T, 4, h, w), images (B, 3, H, W), weights of errors, and tokens or encodings of the texts (B, 77, ...).

        A dropped text is "", a dropped image is white (+1).
        """
        rng = np.random.default_rng([self.seed, number])
        size, rows = self.phase.sizes[number % len(self.phase.sizes)], self._rows_of_batch(number)
        clips = self.clips[size]
        source, numbers = clips.source, [clips.numbers[row] for row in rows]
        texts = [source.text(i, rng) if rng.random() >= self.phase.drop_text else "" for i in numbers]
        images = from_uint8(clips.images[rows])
        dropped, handed = (rng.random(len(rows)) < share for share in (self.phase.drop_image, self.phase.hand_over))
        if handed.any():
            images[handed] = from_uint8(self.hand_overs[size][[n for n, yes in zip(numbers, handed, strict=True) if yes]])
        images[dropped] = 1.0
        latents = clips.latents[rows].float()
        return {"latents": latents, "images": images, "weights": source.weights(numbers, latents), **self._text_inputs(texts)}

    def _text_inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return self.texts.batch(texts) if self.texts else {TOKENS: torch.stack([self._tokens(text) for text in texts])}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted mean squared error of the prediction at random timesteps."""
        latents = batch["latents"]
        schedule = self._pipeline[0].schedule
        uniform = torch.rand(len(latents), device=latents.device)
        total = schedule.config.num_train_timesteps
        timesteps = (total * uniform ** (1 / self.phase.timestep_power)).long().clamp(max=total - 1)
        noise = torch.randn_like(latents)
        noisy = schedule.add_noise(latents, noise, timesteps)
        text = batch[ENCODINGS] if ENCODINGS in batch else batch[TOKENS]
        prediction = self._predict(noisy, timesteps, text, *([batch["images"]] if self.with_image else []))
        errors = (prediction.float() - schedule.target(latents, noise, timesteps)).square()
        weights = batch["weights"].expand_as(errors)
        return {"loss": (weights * errors).sum() / weights.sum()}

    def _pass(self, noisy: Tensor, timesteps: Tensor, text: Tensor, image: Tensor | None = None) -> Tensor:
        """The model's prediction; `text` holds tokens, or encodings if the text encoder is frozen."""
        encodings = text.float() if text.is_floating_point() else self.text_encoder(text)
        return self.model(noisy, timesteps, encodings, image)

    @torch.no_grad()
    def samples(self) -> Samples:
        """True clips, and below each the generated ones: from text, and with a branch from image, and from both.

        With a branch, figures are FFF_SSIM of all clips generated from both, and its ceiling: FFF_SSIM of the images
        encoded and decoded, which no model exceeds by much.
        """
        true, texts = self._samples
        shown, prompts = true[: self.SAMPLES], texts[: self.SAMPLES]
        rows, figures = [shown, self._generate(prompts, None)], {}
        if self.with_image:
            images = true[:, 0]
            both = self._generate(texts, images)
            rows += [self._generate([""] * len(prompts), shown[:, 0]), both[: self.SAMPLES]]
            figures = {
                "fff_ssim": float(first_frame_ssim(both[:, 0], images).mean()),
                "fff_ssim_ceiling": float(first_frame_ssim(self._restored(images), images).mean()),
            }
        return Samples(contact_sheet(rearrange(rows, "k n t c h w -> (n k t) c h w"), self.phase.num_frames), figures)

    def _generate(self, texts: list[str], images: Tensor | None) -> Tensor:
        """Clips (B, T, 3, H, W), a few at a time, because training needs the memory."""
        (height, width), made = self.phase.sizes[0], []
        for first in range(0, len(texts), self.SAMPLES):
            some = slice(first, first + self.SAMPLES)
            clips = self._pipeline[0](
                texts[some], None if images is None else images[some],
                num_frames=self.phase.num_frames, height=height, width=width, steps=self.phase.sample_steps,
            )  # fmt: skip
            made.append(clips.float().cpu())
        return torch.cat(made)

    def _restored(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), encoded and decoded."""
        pipeline = self._pipeline[0]
        return pipeline.decode(pipeline.encode(images[:, None].to(pipeline.device)))[:, 0].float().cpu()

    def _trainable(self) -> Iterator[nn.Parameter]:
        modules = {"unet": self.model.unet, "retention": self.model.retention, "text_encoder": self.text_encoder}
        for name in self.phase.trainable:
            if name == "temporal":
                yield from (p for _, p in self.model.temporal_parameters())
            else:
                yield from modules[name].parameters()

    def _rows_of_batch(self, number: int) -> list[int]:
        """The rows of batch `number` in its size's cache. Batches take sizes in turn; an epoch is one permutation."""
        rounds, turn = divmod(number, len(self.phase.sizes))
        size = self.phase.sizes[turn]
        before = rounds * self.phase.sizes.count(size) + self.phase.sizes[:turn].count(size)  # earlier batches of this size
        count, total = self.phase.batch_size_at(size), len(self.clips[size])
        draws = range(before * count, (before + 1) * count)
        epochs = {draw // total for draw in draws}
        order = {e: np.random.default_rng([self.seed, 1, *size, e]).permutation(total) for e in epochs}
        return [int(order[draw // total][draw % total]) for draw in draws]
