"""A picture and a sentence to a clip, without ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from ..common.checks import DOWNSCALE, InputError, check_image, check_number, check_size
from ..media.images import white_image
from ..models.autoencoder import SCALE_FACTOR, build_autoencoder
from ..models.config import ModelConfig
from ..models.dreamvideo import DreamVideo
from ..models.kernels.fused import lay_out_weights
from ..models.layers import Operations
from ..models.precision import best_dtype
from ..models.text_encoder import TextEncoder
from ..weights.checkpoint import PARTS, Checkpoint, CheckpointError, check_keys, save_checkpoint
from ..weights.sources import open_model
from .cuda_graphs import GraphedModel
from .cuda_graphs import available as graphs_available
from .guidance import Guidance
from .guided_step import GuidedModel
from .schedule import NoiseSchedule

_PIXELS_TOGETHER = 512 * 512  # that the autoencoder is given at once on a GPU; a larger frame goes alone
SHIPPED = Path(__file__).parents[1] / "assets" / "dreamvideo_sprites.safetensors"


class Pipeline:
    """All parts of one model, and the sampling that joins them.

    Parts compute in the precision of their weights; latents between steps and clips are float32. With `cuda_graphs`
    (`load`: yes, `build`: no) the model's passes are CUDA graphs on such a device (`graphs.py`). They are kept until a clip
    has another shape, or the autoencoder lacks the memory.
    """

    def __init__(self, model: DreamVideo, text_encoder: TextEncoder, autoencoder: nn.Module, cuda_graphs: bool = False):
        self.model, self.text_encoder, self.autoencoder = model, text_encoder, autoencoder
        self.config: ModelConfig = model.config
        self.schedule = NoiseSchedule(self.config.schedule)
        self.cuda_graphs = cuda_graphs
        self._graphed: tuple[tuple[int, ...], GraphedModel] | None = None

    @classmethod
    def load(
        cls,
        path: str | Path = SHIPPED,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        cuda_graphs: bool = True,
    ) -> Pipeline:
        """Read a file or folder that holds every part but, perhaps, the retention branch.

        `dtype` is as in `to`; None is the best one for the model on this device (`best_dtype`).
        """
        if dtype is not None:
            _check_precision(device, dtype)
        checkpoint = open_model(path)
        missing = sorted(set(checkpoint.lacks()) - {"retention"})
        if missing:
            raise CheckpointError(f"{Path(path).name} has no {' and no '.join(missing)}; generating needs all parts")
        # Not `build`: drawing fresh weights for all layers of a full-size model takes longer than reading its own.
        model = DreamVideo(checkpoint.config, Operations(device="meta"))
        if dtype is None:
            dtype = best_dtype(torch.device(device), sum(weight.numel() for weight in model.parameters()))
        model = model.to(dtype).to_empty(device="cpu")
        text_encoder, autoencoder = TextEncoder(checkpoint.config.text_encoder), build_autoencoder(checkpoint.config.vae)
        pipeline = cls(model, text_encoder, autoencoder, cuda_graphs).to("cpu", dtype)
        pipeline.load_parts(checkpoint.parts)
        return pipeline.to(device, dtype)

    @classmethod
    def build(cls, config: ModelConfig) -> Pipeline:
        """All parts with fresh weights."""
        text_encoder = TextEncoder(config.text_encoder).initialise()
        return cls(DreamVideo(config).initialise(), text_encoder, build_autoencoder(config.vae))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Pipeline:
        """All parts on another device and, where one is given, in another precision.

        The autoencoder stays in float32 where half precision would cost it too much (`_autoencoder_dtype`). A device without
        `dtype` raises `InputError`.
        """
        if dtype is not None:
            _check_precision(device, dtype)
        self.model.to(device, dtype).eval()
        self.text_encoder.to(device, dtype).eval()
        self.autoencoder.to(device, _autoencoder_dtype(torch.device(device), dtype)).eval()
        lay_out_weights(self.model, self.device)
        return self

    @property
    def device(self) -> torch.device:
        return self.model.unet.conv_in.weight.device

    @property
    def _vae_dtype(self) -> torch.dtype:
        return next(self.autoencoder.parameters()).dtype

    @property
    def uses_graphs(self) -> bool:
        return self.cuda_graphs and graphs_available(self.device)

    def save(self, path: str | Path, parts: Container[str] = PARTS, dtype: torch.dtype = torch.float16) -> None:
        """Write the named parts ("temporal": the U-Net's temporal layers); the configuration describes those alone."""
        states = {
            "unet": self.model.unet.state_dict(),
            "text_encoder": self.text_encoder.file_state(),
            "vae": self.autoencoder.state_dict(),
        }
        if self.model.retention is not None:
            states["retention"] = self.model.retention.state_dict()
        save_checkpoint(path, Checkpoint(self.config, states).only(parts), dtype)

    def load_parts(self, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Weights of some or all parts, strictly."""
        modules = {"unet": self.model.unet, "retention": self.model.retention, "vae": self.autoencoder}
        for part, state in parts.items():
            if part == "text_encoder":
                check_keys(state, self.text_encoder.file_state(), part)
                self.text_encoder.load_file_state(state)
            else:
                check_keys(state, modules[part].state_dict(), part)
                modules[part].load_state_dict(state)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Tensor | None = None,
        *,
        negative: str = "",
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        text_scale: float | None = None,
        image_scale: float | None = None,
        order: str = "text_first",
        rescale: float = 0.0,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        retention_every: int = 1,
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Clips (B, T, 3, H, W) in [-1, 1] for B prompts.

        `image` is (B, 3, H, W) in [-1, 1] or None; "" as prompt with an image animates the image alone. What is
        None takes the model's own default. `Guidance` says what the scales, `order`, `rescale`, `guidance_start` and
        `guidance_end` mean, `GuidedModel` what `retention_every` does.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        default = self.config.sampling
        num_frames = default.num_frames if num_frames is None else num_frames
        steps = default.steps if steps is None else steps
        if image is None:
            height, width = height or default.height, width or default.width
        else:
            height, width = self._image_size(image, len(prompts), height, width)
        check_number("num_frames", num_frames, 1, math.inf)
        check_number("retention_every", retention_every, 1, math.inf)
        check_size("height", height)
        check_size("width", width)
        guidance = Guidance(
            default.text_scale if text_scale is None else text_scale,
            default.image_scale if image_scale is None else image_scale,
            order, rescale, guidance_start, guidance_end,
        )  # fmt: skip
        given = {"has_text": any(p != negative for p in prompts), "has_image": image is not None}
        *encoded, empty = self.text_encoder.encode([*prompts, negative])
        texts = {True: torch.stack(encoded), False: empty.expand(len(prompts), -1, -1)}
        images = {}
        if self.model.retention is not None:
            white = white_image(len(prompts), height, width, device=self.device)
            images = {True: white if image is None else image.float().to(self.device), False: white}
        shape = (len(prompts), num_frames, self.config.unet.in_channels, height // DOWNSCALE, width // DOWNSCALE)
        guided = GuidedModel(self.passes(shape), texts, images, guidance, retention_every, **given)
        noise = self._noise(shape, seed, None if image is None else images[True])
        for number, latents in enumerate(self.schedule.ddim(guided, noise, steps), 1):
            if on_step:
                on_step(number, steps)
        try:
            return self.decode(latents)
        except torch.cuda.OutOfMemoryError:
            if self._graphed is None:
                raise
        self._graphed = guided = None  # whose memory is free only when nobody holds them
        torch.cuda.empty_cache()
        return self.decode(latents)

    def passes(self, shape: tuple[int, ...]) -> DreamVideo | GraphedModel:
        """The model, or its graphs for latents (B, T, C, h, w) of this shape."""
        if not self.uses_graphs:
            return self.model
        if self._graphed is None or self._graphed[0] != shape or not self._graphed[1].fits(self.model):
            self._graphed = None  # before others take its memory
            self._graphed = shape, GraphedModel(self.model)
        return self._graphed[1]

    def _noise(self, shape: tuple[int, ...], seed: int, image: Tensor | None) -> Tensor:
        """Where sampling begins (B, T, C, h, w): noise, with what its timestep leaves of the mean of pictures (B, 3, H, W)."""
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        if image is None:
            return noise
        return noise + self.schedule.terminal_signal(self.encode(image[:, None]).mean((-2, -1), keepdim=True))

    def _image_size(self, image: Tensor, clips: int, height: int | None, width: int | None) -> tuple[int, int]:
        if self.model.retention is None:
            raise InputError("an image is given, but this model has no retention branch: it makes video from text only")
        check_image("image", image)
        if len(image) != clips:
            raise InputError(f"there are {len(image)} images for {clips} prompts; give one image per prompt")
        size = tuple(image.shape[-2:])
        if (height or size[0], width or size[1]) != size:
            raise InputError(f"the image is {size[1]} x {size[0]}, the clip {width} x {height}; fit_image makes them equal")
        return size

    def decode(self, latents: Tensor) -> Tensor:
        """Model latents (B, T, 4, h, w) to frames (B, T, 3, 8h, 8w) in [-1, 1]."""
        rows = rearrange(latents / SCALE_FACTOR, "b t c h w -> (b t) c h w").to(self._vae_dtype)
        rows = rows.split(_together(rows, DOWNSCALE))
        frames = torch.cat([self.autoencoder.decode(row).clamp(-1, 1).float() for row in rows])
        return rearrange(frames, "(b t) c h w -> b t c h w", b=len(latents))

    def encode(self, frames: Tensor) -> Tensor:
        """The reverse of `decode`."""
        rows = rearrange(frames, "b t c h w -> (b t) c h w").to(self._vae_dtype)
        rows = rows.split(_together(rows))
        latents = torch.cat([self.autoencoder.encode(row).float() * SCALE_FACTOR for row in rows])
        return rearrange(latents, "(b t) c h w -> b t c h w", b=len(frames))


def _check_precision(device: torch.device | str, dtype: torch.dtype) -> None:
    try:
        torch.empty(1, device=device, dtype=dtype)
    except (TypeError, RuntimeError) as error:  # as torch says it of Apple's GPUs, and of others
        called = str(dtype).removeprefix("torch.")
        raise InputError(
            f"{device} has no {called} here ({error}); take float32, another precision or another device"
        ) from error


def _autoencoder_dtype(device: torch.device, dtype: torch.dtype | None) -> torch.dtype | None:
    """The autoencoder's precision beside a model's of `dtype`; None leaves it as it is.

    In float16 it may overflow. On a CPU bfloat16 moves pixels by up to 28 levels of 255 and saves a hundredth of a clip's time.
    """
    keeps_float32 = dtype == torch.float16 or (dtype == torch.bfloat16 and device.type == "cpu")
    return torch.float32 if keeps_float32 else dtype


def _together(rows: Tensor, scale: int = 1) -> int:
    """How many of `rows` (N, C, H, W) the autoencoder is given at once, a pixel of them being `scale` of a picture's a side.

    On a CPU many take longer than one by one, and more memory.
    """
    pixels = rows.shape[-2] * rows.shape[-1] * scale**2
    return 1 if rows.device.type == "cpu" else max(1, _PIXELS_TOGETHER // pixels)
