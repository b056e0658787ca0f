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
from ..models.config import LARGEST_FPS, ModelConfig
from ..models.dreamvideo import DreamVideo
from ..models.image_conditions import ImageConditions, image_latents
from ..models.image_encoder import ImageEncoder, grey_image
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

    Parts compute in the precision of their weights; latents between steps and clips are float32. With `cuda_graphs` (`load`:
    yes, `build`: no) the model's passes are CUDA graphs on such a device (`cuda_graphs.py`). They are kept until a clip has
    another shape, or the autoencoder lacks the memory.
    """

    def __init__(
        self,
        model: DreamVideo,
        text_encoder: TextEncoder,
        autoencoder: nn.Module,
        image_encoder: ImageEncoder | None = None,
        cuda_graphs: bool = False,
    ):
        self.model, self.text_encoder, self.autoencoder, self.image_encoder = model, text_encoder, autoencoder, image_encoder
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
            raise CheckpointError(
                f"{Path(path).name} has no {' and no '.join(missing)}; generating needs all parts. Where those are in other "
                "files, use ComfyUI, whose loaders bring them together"
            )
        # Not `build`: drawing fresh weights for all layers of a full-size model takes longer than reading its own.
        model = DreamVideo(checkpoint.config, Operations(device="meta"))
        if dtype is None:
            dtype = best_dtype(torch.device(device), sum(weight.numel() for weight in model.parameters()))
        model = model.to(dtype).to_empty(device="cpu")
        pipeline = cls(model, TextEncoder(checkpoint.config.text_encoder), *_visual_parts(checkpoint.config), cuda_graphs)
        pipeline.to("cpu", dtype)
        pipeline.load_parts(checkpoint.parts)
        return pipeline.to(device, dtype)

    @classmethod
    def build(cls, config: ModelConfig) -> Pipeline:
        """All parts with fresh weights."""
        text_encoder = TextEncoder(config.text_encoder).initialise()
        return cls(DreamVideo(config).initialise(), text_encoder, *_visual_parts(config))

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
        if self.image_encoder is not None:
            self.image_encoder.to(device, dtype).eval()
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
        if self.model.resampler is not None:
            states["resampler"] = self.model.resampler.state_dict()
        if self.image_encoder is not None:
            states["image_encoder"] = self.image_encoder.file_state()
        save_checkpoint(path, Checkpoint(self.config, states).only(parts), dtype)

    def load_parts(self, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Weights of some or all parts, strictly."""
        encoders = {"text_encoder": self.text_encoder, "image_encoder": self.image_encoder}
        modules = {**dict(self.model.named_children()), "vae": self.autoencoder}
        for part, state in parts.items():
            if part in encoders:
                check_keys(state, encoders[part].file_state(), part)
                encoders[part].load_file_state(state)
            else:
                check_keys(state, modules[part].state_dict(), part)
                modules[part].load_state_dict(state)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Tensor | None = None,
        *,
        end_image: Tensor | None = None,
        fps: int | None = None,
        negative: str = "",
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        eta: float | None = None,
        text_scale: float | None = None,
        image_scale: float | None = None,
        order: str | None = None,
        rescale: float | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        retention_every: int = 1,
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Clips (B, T, 3, H, W) in [-1, 1] for B prompts.

        `image` is (B, 3, H, W) in [-1, 1] or None; "" as prompt with an image animates the image alone. `end_image`, of the
        same shape, is for models that go from a first to a last picture: the same one twice makes a loop. What is None takes
        the model's own default. `Guidance` says what the scales, `order`, `rescale`, `guidance_start` and `guidance_end` mean,
        `SamplingDefaults` what `fps` and `eta` do, `GuidedModel` what `retention_every` does. Raises `InputError`.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        default = self.config.sampling
        num_frames = default.num_frames if num_frames is None else num_frames
        steps, eta = default.steps if steps is None else steps, default.eta if eta is None else eta
        self.check_given(image, end_image, num_frames, fps)
        if image is None:
            height, width = height or default.height, width or default.width
        else:
            height, width = _image_size(image, end_image, len(prompts), height, width)
        check_number("eta", eta, 0, 1)
        check_number("retention_every", retention_every, 1, math.inf)
        check_size("height", height)
        check_size("width", width)
        guidance = Guidance(
            default.text_scale if text_scale is None else text_scale,
            default.image_scale if image_scale is None else image_scale,
            default.order if order is None else order,
            default.rescale if rescale is None else rescale,
            guidance_start,
            guidance_end,
        )
        given = {"has_text": any(p != negative for p in prompts), "has_image": image is not None}
        *encoded, empty = self.text_encoder.encode([*prompts, negative])
        texts = {True: torch.stack(encoded), False: empty.expand(len(prompts), -1, -1)}
        images = {}
        if self.model.retention is not None:
            white = white_image(len(prompts), height, width, device=self.device)
            images = {True: white if image is None else image.float().to(self.device), False: white}
        conditions = self._conditions(image, end_image, len(prompts), num_frames, fps)
        shape = (len(prompts), num_frames, self.config.unet.latent_channels, height // DOWNSCALE, width // DOWNSCALE)
        guided = GuidedModel(self.passes(shape), texts, images, guidance, retention_every, conditions=conditions, **given)
        generator = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            return torch.randn(shape, generator=generator).to(self.device)

        noise = draw() if image is None or not images else draw() + self._trace(images[True])
        for number, latents in enumerate(self.schedule.ddim(guided, noise, steps, eta, draw), 1):
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

    def _trace(self, image: Tensor) -> Tensor:
        """What the noisiest timestep leaves of the mean of pictures (B, 3, H, W), (B, 1, C, 1, 1): sampling begins with it.

        A retention branch is trained to see it there. DynamiCrafter begins with noise alone.
        """
        return self.schedule.terminal_signal(self._picture_latents(image)[:, None].mean((-2, -1), keepdim=True))

    def _conditions(
        self, image: Tensor | None, end_image: Tensor | None, clips: int, num_frames: int, fps: int | None
    ) -> dict[bool, ImageConditions] | None:
        """What the U-Net takes beside latents, timestep and text, with the picture and without it; None if nothing.

        Without it there are the tokens of grey in its place. Its latents stay, as in the training of such models.
        """
        unet = self.config.unet
        if not unet.sees_image and not unet.fps_embedding:
            return None
        latents, tokens = None, {True: None, False: None}
        if unet.image_latents != "none":
            ends = [self._picture_latents(picture) for picture in (image, end_image) if picture is not None]
            latents = image_latents(unet.image_latents, torch.stack(ends, dim=1), num_frames)
        if unet.image_cross_attention != "none":
            grey = self._image_tokens(grey_image(device=self.device))
            tokens = {True: self._image_tokens(image), False: grey.repeat(clips, 1, 1)}
        rate = None
        if unet.fps_embedding:
            rate = torch.full((clips,), self.config.sampling.fps if fps is None else fps, device=self.device)
        return {given: ImageConditions(latents, tokens[given], rate) for given in (True, False)}

    def _picture_latents(self, image: Tensor) -> Tensor:
        return self.encode(image[:, None].to(self.device))[:, 0]

    def _image_tokens(self, image: Tensor) -> Tensor:
        return self.model.image_tokens(self.image_encoder.encode(image))

    def check_given(self, image: Tensor | None, end_image: Tensor | None, num_frames: int, fps: int | None = None) -> None:
        """Raise `InputError` for what this model does not take, and for a picture that it cannot do without."""
        unet = self.config.unet
        if image is not None and not self.config.takes_image:
            raise InputError("an image is given, but this model has no retention branch: it makes video from text only")
        if image is None and unet.sees_image:
            raise InputError("no image is given, but this model makes clips of a picture only; give it one")
        if end_image is not None and unet.image_latents != "ends":
            raise InputError("an end_image is given, but this model takes no last picture; leave it out, or take one that does")
        if end_image is None and unet.image_latents == "ends":
            raise InputError(
                "no end_image is given, but this model goes from a first to a last picture; give one, or the image again for a "
                "loop"
            )
        if fps is not None:
            check_number("fps", fps, 1, LARGEST_FPS)
            if not unet.fps_embedding:
                raise InputError(f"fps is {fps}, but this model knows nothing of frame rates; leave it out")
        check_number("num_frames", num_frames, 1, math.inf)
        only = self.config.resampler.num_frames if self.config.resampler else num_frames
        if num_frames != only:
            raise InputError(f"num_frames is {num_frames}; allowed: {only}, for this model makes clips of that length alone")

    def decode(self, latents: Tensor) -> Tensor:
        """Model latents (B, T, 4, h, w) to frames (B, T, 3, 8h, 8w) in [-1, 1]."""
        rows = rearrange(latents / SCALE_FACTOR, "b t c h w -> (b t) c h w").to(self._vae_dtype)
        rows = rows.split(_together(rows, DOWNSCALE))
        frames = torch.cat([self.autoencoder.decode(row).clamp(-1, 1).float() for row in rows])
        return rearrange(frames, "(b t) c h w -> b t c h w", b=len(latents))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, T, 3, H, W) in [-1, 1] to model latents (B, T, 4, H/8, W/8)."""
        rows = rearrange(frames, "b t c h w -> (b t) c h w").to(self._vae_dtype)
        rows = rows.split(_together(rows))
        latents = torch.cat([self.autoencoder.encode(row).float() * SCALE_FACTOR for row in rows])
        return rearrange(latents, "(b t) c h w -> b t c h w", b=len(frames))


def _visual_parts(config: ModelConfig) -> tuple[nn.Module, ImageEncoder | None]:
    return build_autoencoder(config.vae), ImageEncoder(config.image_encoder) if config.image_encoder else None


def _image_size(image: Tensor, end_image: Tensor | None, clips: int, height: int | None, width: int | None) -> tuple[int, int]:
    """The pictures' size, which must be the clip's, and there must be one for each clip; else `InputError`."""
    size = tuple(image.shape[-2:])
    for name, picture in (("image", image), ("end_image", end_image)):
        if picture is None:
            continue
        check_image(name, picture)
        if len(picture) != clips:
            raise InputError(f"there are {len(picture)} {name}s for {clips} prompts; give one {name} per prompt")
        high, wide = picture.shape[-2:]
        if (height or size[0], width or size[1]) != (high, wide):
            raise InputError(
                f"the {name} is {wide} x {high}, the clip {width or size[1]} x {height or size[0]}; fit_image makes them equal"
            )
    return size


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
