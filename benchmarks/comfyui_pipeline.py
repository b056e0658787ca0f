"""The pack's nodes inside ComfyUI, called like the core's `Pipeline`: benchmarks measure what a user would run."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from host import InProcessComfyUI
from torch import Tensor

from dreamvideo_core.sampling.pipeline import Pipeline


class ComfyUIPipeline:
    """One model in ComfyUI; `sampler` and `scheduler` are ComfyUI's names."""

    def __init__(self, checkpoint: Path, host: InProcessComfyUI, sampler: str = "ddim", scheduler: str = "simple"):
        self.host, self.sampler, self.scheduler = host, sampler, scheduler
        self.core = Pipeline.load(checkpoint)
        self.config, self.device = self.core.config, self.core.device
        shutil.copyfile(checkpoint, host.base.models / "dreamvideo" / checkpoint.name)
        _silence_progress_bars()
        self.checkpoint = checkpoint.name
        self.load()

    def load(self, **options: bool) -> None:
        """The model again, with further inputs of Load DreamVideo."""
        self.model, self.clip, self.vae = self.host.call("LoadDreamVideo", checkpoint=self.checkpoint, **options)

    def __call__(
        self,
        prompts: list[str],
        image: Tensor | None,
        *,
        num_frames: int,
        height: int,
        width: int,
        steps: int,
        text_scale: float,
        image_scale: float,
        order: str,
        seed: int,
    ) -> Tensor:
        """Clips (B, T, 3, H, W) in [-1, 1], one after the other, each from noise of its own seed."""
        clips = []
        for number, prompt in enumerate(prompts):
            picture = {} if image is None else {"image": (image[number : number + 1].movedim(1, -1) + 1) / 2, "vae": self.vae}
            positive, negative, latent = self.host.call(
                "RetentionEncode",
                positive=self._text(prompt),
                negative=self._text(""),
                width=width,
                height=height,
                frames=num_frames,
                batch_size=1,
                fit="crop",
                strength=1.0,
                start=0.0,
                end=1.0,
                **picture,
            )
            (sampled,) = self.host.call(
                "DualCFGSampler",
                model=self.model,
                positive=positive,
                negative=negative,
                latent=latent,
                seed=seed + number,
                steps=steps,
                text_scale=text_scale,
                image_scale=image_scale,
                order=order,
                sampler=self.sampler,
                scheduler=self.scheduler,
                denoise=1.0,
                rescale=0.0,
            )
            (frames,) = self.host.call("VAEDecode", vae=self.vae, samples=sampled)
            clips.append(frames.movedim(-1, 1) * 2 - 1)
        return torch.stack(clips)

    def encode(self, frames: Tensor) -> Tensor:
        return self.core.encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        return self.core.decode(latents)

    def _text(self, text: str) -> object:
        return self.host.call("CLIPTextEncode", clip=self.clip, text=text)[0]


def _silence_progress_bars() -> None:
    """One bar a clip would bury the benchmark's own."""
    from comfy import utils

    utils.PROGRESS_BAR_ENABLED = False
