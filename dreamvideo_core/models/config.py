"""Hyper-parameters of a model, as plain data: what a checkpoint's metadata holds.

They come from files of unknown origin, so every setting says here what it may be, and a value that is anything else raises
`ConfigError` before anything is built. The bounds lie far above every model that is known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..common.checks import DOWNSCALE, InputError, shown

DOWN_BLOCKS = ("CrossAttnDownBlock3D", "DownBlock3D")
UP_BLOCKS = ("CrossAttnUpBlock3D", "UpBlock3D")
TEMPORAL_ATTENTIONS = ("transformer", "self_attention")
FUSIONS = ("add", "concat")
ORDERS = ("text_first", "image_first")
RESCALED = ("clean_latents", "prediction")
BETA_SCHEDULES = ("scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction")
TIMESTEP_SPACINGS = ("simple", "leading", "trailing")
TIMESTEPS = 1000  # of every noise schedule that is known; ComfyUI counts on them too where it takes shares of a schedule
AUTOENCODERS = ("taesd", "kl")
IMAGE_LATENTS = ("none", "repeat", "ends")
IMAGE_CROSS_ATTENTIONS = ("none", "plain", "learned_scale")
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")  # that transformers and ComfyUI both have
_WIDEST = 8192  # channels
_LEVELS = 8
_LARGEST = 16384  # pixels
LARGEST_FPS = 1000


class ConfigError(InputError):
    """A configuration that no model can have, or that this version does not know."""


Check = Callable[[str, Any], None]


def _setting(default: Any, check: Check) -> Any:
    """A setting of a configuration, with what it may be."""
    return field(default=default, metadata={"check": check})


def _later_setting(default: Any, check: Check) -> Any:
    """One that came after the first version: files do not name it where it has its default, so old ones keep their bytes."""
    return field(default=default, metadata={"check": check, "later": True})


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(f"{name} is {shown(value)}; allowed: {allowed}")


def _whole(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) is not int or not low <= value <= high:  # JSON's true is an int too
            _refuse(name, value, f"a whole number from {low} to {high}")

    return check


def _number(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high or math.isnan(value):
            _refuse(name, value, f"a number from {low:g} to {high:g}")

    return check


def _exactly(only: int) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) is not int or value != only:
            _refuse(name, value, str(only))

    return check


def _flag(name: str, value: Any) -> None:
    if type(value) is not bool:
        _refuse(name, value, "true or false")


def _one_of(allowed: tuple[str, ...]) -> Check:
    def check(name: str, value: Any) -> None:
        if value not in allowed:
            _refuse(name, value, ", ".join(allowed))

    return check


def _each(check_one: Check) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, tuple) or not 1 <= len(value) <= _LEVELS:
            _refuse(name, list(value) if isinstance(value, tuple) else value, f"a list of 1 to {_LEVELS}")
        for one in value:
            check_one(name, one)

    return check


def _or_none(check_one: Check) -> Check:
    def check(name: str, value: Any) -> None:
        if value is not None:
            check_one(name, value)

    return check


def _side(name: str, value: Any) -> None:
    _whole(DOWNSCALE, _LARGEST)(name, value)
    if value % DOWNSCALE:
        _refuse(name, value, f"multiples of {DOWNSCALE}")


_widths = _each(_whole(1, _WIDEST))


class _Checked:
    """A configuration whose settings are checked when it is made."""

    def __post_init__(self):
        for setting in dataclasses.fields(self):
            if "check" in setting.metadata:
                setting.metadata["check"](setting.name, getattr(self, setting.name))


@dataclass(frozen=True)
class UNetConfig(_Checked):
    """The primary U-Net. Names follow diffusers' `UNet3DConditionModel`; the temporal ones below are ours.

    `temporal_attention` is "transformer" (ModelScope: projections, two attentions, feed-forward) or
    "self_attention" (one attention alone). `temporal_attention_everywhere` puts one into the blocks without
    cross-attention too, as the paper has it. `temporal_positions` adds sinusoidal frame positions to its queries,
    keys and values. `temporal_conv_layers` is 4 in ModelScope's Temp-Conv. `num_attention_heads` gives spatial attention
    as many heads at every width, as Stable Diffusion 1 has it; without it a head has `attention_head_dim` channels.

    The last three are for U-Nets that see a picture without a retention branch (`ImageConditions`). `image_latents` says how
    its latents are concatenated to the noisy ones: "repeat" in every frame, "ends" in the first and the last frame.
    `image_cross_attention` adds attention to image tokens beside that to the text, by a scale that is 1 ("plain") or learned.
    `fps_embedding` adds an embedding of the frame rate to that of the timestep.
    """

    in_channels: int = _setting(4, _whole(1, 64))
    out_channels: int = _setting(4, _whole(1, 64))
    block_out_channels: tuple[int, ...] = _setting((320, 640, 1280, 1280), _widths)
    down_block_types: tuple[str, ...] = _setting(("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",), _each(_one_of(DOWN_BLOCKS)))
    up_block_types: tuple[str, ...] = _setting(("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3, _each(_one_of(UP_BLOCKS)))
    layers_per_block: int = _setting(2, _whole(1, 8))
    norm_num_groups: int = _setting(32, _whole(1, _WIDEST))
    norm_eps: float = _setting(1e-5, _number(0, 1))
    cross_attention_dim: int = _setting(1024, _whole(1, _WIDEST))
    attention_head_dim: int = _setting(64, _whole(1, _WIDEST))
    num_attention_heads: int | None = _setting(None, _or_none(_whole(1, _WIDEST)))
    transformer_in: bool = _setting(True, _flag)
    temporal_conv_layers: int = _setting(4, _whole(1, 8))
    temporal_attention: str = _setting("transformer", _one_of(TEMPORAL_ATTENTIONS))
    temporal_attention_everywhere: bool = _setting(False, _flag)
    temporal_positions: bool = _setting(False, _flag)
    image_latents: str = _later_setting("none", _one_of(IMAGE_LATENTS))
    image_cross_attention: str = _later_setting("none", _one_of(IMAGE_CROSS_ATTENTIONS))
    fps_embedding: bool = _later_setting(False, _flag)

    def __post_init__(self):
        super().__post_init__()
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types):
            raise ConfigError(
                f"block_out_channels, down_block_types and up_block_types have {levels}, {len(self.down_block_types)} "
                f"and {len(self.up_block_types)} entries; all must have as many"
            )
        for channels in self.block_out_channels:
            for name in ("norm_num_groups", "attention_head_dim", "num_attention_heads"):
                if channels % (getattr(self, name) or 1):
                    raise ConfigError(f"{name} is {getattr(self, name)}, which does not divide block_out_channels' {channels}")

    @property
    def latent_channels(self) -> int:
        """Of the noisy latents: `in_channels` but for those of a picture that is concatenated to them."""
        return self.in_channels if self.image_latents == "none" else self.in_channels // 2

    @property
    def sees_image(self) -> bool:
        """Whether the U-Net itself takes `ImageConditions`."""
        return self.image_latents != "none" or self.image_cross_attention != "none"

    def spatial_head_dim(self, channels: int) -> int:
        return channels // self.num_attention_heads if self.num_attention_heads else self.attention_head_dim


@dataclass(frozen=True)
class RetentionConfig(_Checked):
    """The image retention branch: how conv_d(z) and conv_s(I) meet, and conv_s's widths before the U-Net's own.

    Every width after the first halves the picture, so there is one more of them than halvings to the latents' size.
    """

    fusion: str = _setting("add", _one_of(FUSIONS))
    image_channels: tuple[int, ...] = _setting((16, 32, 96, 256), _widths)

    def __post_init__(self):
        super().__post_init__()
        if len(self.image_channels) != 4:
            raise ConfigError(f"image_channels has {len(self.image_channels)} widths; three halvings to 1/8 need 4")


@dataclass(frozen=True)
class ResamplerConfig(_Checked):
    """Turns CLIP vision's last hidden state, `embedding_dim` wide, into tokens for the U-Net's cross-attention.

    There are `num_queries` tokens for each of `num_frames` frames: a clip has that many frames and no other number. The
    defaults are DynamiCrafter's.
    """

    embedding_dim: int = _setting(1280, _whole(1, _WIDEST))
    width: int = _setting(1024, _whole(1, _WIDEST))
    depth: int = _setting(4, _whole(1, 64))
    num_attention_heads: int = _setting(12, _whole(1, 256))
    attention_head_dim: int = _setting(64, _whole(1, _WIDEST))
    num_queries: int = _setting(16, _whole(1, 4096))
    num_frames: int = _setting(16, _whole(1, 4096))
    cross_attention_dim: int = _setting(1024, _whole(1, _WIDEST))


@dataclass(frozen=True)
class VisionConfig(_Checked):
    """A CLIP vision encoder; names follow transformers' `CLIPVisionConfig`. The defaults are OpenCLIP's ViT-H."""

    hidden_size: int = _setting(1280, _whole(1, _WIDEST))
    intermediate_size: int = _setting(5120, _whole(1, 4 * _WIDEST))
    num_hidden_layers: int = _setting(32, _whole(1, 128))
    num_attention_heads: int = _setting(16, _whole(1, 256))
    hidden_act: str = _setting("gelu", _one_of(ACTIVATIONS))
    image_size: int = _setting(224, _whole(1, 4096))
    patch_size: int = _setting(14, _whole(1, 4096))
    projection_dim: int = _setting(1024, _whole(1, _WIDEST))

    def __post_init__(self):
        super().__post_init__()
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}, which does not divide hidden_size's {self.hidden_size}"
            )


@dataclass(frozen=True)
class TextConfig(_Checked):
    """A CLIP text encoder; names follow transformers' `CLIPTextConfig`.

    `pad_token_id` fills a text up to its length: the end token in Stable Diffusion 1, 0 in Stable Diffusion 2.
    """

    hidden_size: int = _setting(768, _whole(1, _WIDEST))
    intermediate_size: int = _setting(3072, _whole(1, 8 * _WIDEST))
    num_hidden_layers: int = _setting(12, _whole(1, 128))
    num_attention_heads: int = _setting(12, _whole(1, _WIDEST))
    hidden_act: str = _setting("quick_gelu", _one_of(ACTIVATIONS))
    vocab_size: int = _setting(49408, _whole(49408, 1_000_000))  # CLIP's words, which its tokenizer numbers
    max_position_embeddings: int = _setting(77, _whole(77, 4096))  # what its tokenizer fills
    pad_token_id: int = _setting(49407, _whole(0, 49407))

    def __post_init__(self):
        super().__post_init__()
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}, which does not divide hidden_size's {self.hidden_size}"
            )


@dataclass(frozen=True)
class AutoencoderConfig(_Checked):
    """`layout` "taesd" is the small autoencoder, "kl" Stable Diffusion's; names follow diffusers' `AutoencoderKL`.

    The settings after `latent_channels` belong to "kl" alone.
    """

    layout: str = _setting("taesd", _one_of(AUTOENCODERS))
    latent_channels: int = _setting(4, _whole(1, 64))
    block_out_channels: tuple[int, ...] = _setting((128, 256, 512, 512), _widths)
    layers_per_block: int = _setting(2, _whole(1, 8))
    norm_num_groups: int = _setting(32, _whole(1, _WIDEST))

    def __post_init__(self):
        super().__post_init__()
        if 2 ** (len(self.block_out_channels) - 1) != DOWNSCALE:
            raise ConfigError(f"block_out_channels has {len(self.block_out_channels)} widths; three halvings to 1/8 need 4")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ConfigError(
                    f"norm_num_groups is {self.norm_num_groups}, which does not divide block_out_channels' {channels}"
                )


@dataclass(frozen=True)
class ScheduleConfig(_Checked):
    """The noise schedule that a model was trained on, and where its sampling timesteps lie. Names follow diffusers' schedulers.

    `beta_start` and `beta_end` belong to "scaled_linear" alone. `rescale_betas_zero_snr` leaves nothing of the clean latents at
    the noisiest timestep (arXiv 2305.08891, Algorithm 1). `timestep_spacing` "simple" is ComfyUI's scheduler of that name, the
    other two are in Table 2 of the same paper; `steps_offset` is added to "leading" timesteps. `base_scale` is DynamiCrafter's
    (arXiv 2310.12190): clean latents are multiplied by a factor that falls from 1 to `base_scale` over the first 400 timesteps.
    """

    num_train_timesteps: int = _setting(TIMESTEPS, _exactly(TIMESTEPS))
    beta_schedule: str = _setting("scaled_linear", _one_of(BETA_SCHEDULES))
    beta_start: float = _setting(0.00085, _number(1e-6, 0.1))
    beta_end: float = _setting(0.012, _number(1e-6, 0.1))
    prediction_type: str = _setting("epsilon", _one_of(PREDICTIONS))
    rescale_betas_zero_snr: bool = _setting(False, _flag)
    timestep_spacing: str = _setting("simple", _one_of(TIMESTEP_SPACINGS))
    steps_offset: int = _setting(0, _whole(0, 1))
    base_scale: float = _setting(1.0, _number(0.01, 1))

    def __post_init__(self):
        super().__post_init__()
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ConfigError(
                "rescale_betas_zero_snr is true and prediction_type 'epsilon'; allowed: 'v_prediction'. The noisiest timestep "
                "is noise alone, so to predict it says nothing of the clean latents"
            )


@dataclass(frozen=True)
class SamplingDefaults(_Checked):
    """What a model is best sampled with; nodes and the command line start from these.

    `rescale` and `order` are those of `Guidance`, `eta` that of DDIM: 1 draws fresh noise in every step. `fps` is what a U-Net
    with `fps_embedding` is told. `rescaled` says what `rescale` acts on: the clean latents, or the U-Net's prediction, as in
    arXiv 2305.08891 and in DynamiCrafter's code.
    """

    steps: int = _setting(25, _whole(1, TIMESTEPS))
    text_scale: float = _setting(1.5, _number(0, 1000))
    image_scale: float = _setting(1.5, _number(0, 1000))
    width: int = _setting(64, _side)
    height: int = _setting(64, _side)
    num_frames: int = _setting(8, _whole(1, 4096))
    order: str = _later_setting("text_first", _one_of(ORDERS))
    rescale: float = _later_setting(0.0, _number(0, 1))
    rescaled: str = _later_setting("clean_latents", _one_of(RESCALED))
    eta: float = _later_setting(0.0, _number(0, 1))
    fps: int = _later_setting(8, _whole(1, LARGEST_FPS))


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """One file is one model: the configuration of each part that the file holds, None for a part it lacks."""

    unet: UNetConfig | None = UNetConfig()
    retention: RetentionConfig | None = RetentionConfig()
    text_encoder: TextConfig | None = None
    vae: AutoencoderConfig | None = None
    resampler: ResamplerConfig | None = field(default=None, metadata={"later": True})
    image_encoder: VisionConfig | None = field(default=None, metadata={"later": True})
    schedule: ScheduleConfig = ScheduleConfig()
    sampling: SamplingDefaults = SamplingDefaults()

    def __post_init__(self):
        super().__post_init__()
        if self.sampling is None:
            raise ConfigError("sampling is null; allowed: a table of settings")
        if self.unet and self.vae and self.unet.latent_channels != self.vae.latent_channels:
            raise ConfigError(
                f"the U-Net's latents have {self.unet.latent_channels} channels but the autoencoder's latent_channels is "
                f"{self.vae.latent_channels}; they must be equal"
            )
        if self.unet and self.retention and self.unet.sees_image:
            raise ConfigError("the U-Net takes a picture's latents or tokens and has a retention branch too; allowed: either")
        if self.unet and self.resampler and self.unet.cross_attention_dim != self.resampler.cross_attention_dim:
            raise ConfigError(
                f"the U-Net's cross_attention_dim is {self.unet.cross_attention_dim} but the resampler's is "
                f"{self.resampler.cross_attention_dim}; they must be equal"
            )
        if self.resampler and self.image_encoder and self.resampler.embedding_dim != self.image_encoder.hidden_size:
            raise ConfigError(
                f"the resampler's embedding_dim is {self.resampler.embedding_dim} but the image encoder's hidden_size is "
                f"{self.image_encoder.hidden_size}; they must be equal"
            )
        if self.unet and self.text_encoder and self.unet.cross_attention_dim != self.text_encoder.hidden_size:
            raise ConfigError(
                f"the U-Net's cross_attention_dim is {self.unet.cross_attention_dim} but the text encoder's "
                f"hidden_size is {self.text_encoder.hidden_size}; they must be equal"
            )

    @property
    def takes_image(self) -> bool:
        """Whether the model animates a picture, by a retention branch or by a U-Net that sees it."""
        return self.retention is not None or (self.unet is not None and self.unet.sees_image)

    def sampling_options(self) -> dict[str, Any]:
        """What a pipeline is called with where nothing else is asked for, by the names of its arguments."""
        options = asdict(self.sampling)
        del options["rescaled"]
        if self.unet is None or not self.unet.fps_embedding:
            del options["fps"]
        return options

    def to_dict(self) -> dict:
        """Plain data for JSON. `prediction_type` stands beside the parts, where files had it before they had a schedule.

        A schedule whose other settings are the defaults is left out: files of such models keep the same bytes.
        """
        table = _table(self)
        schedule = table.pop("schedule")
        table["prediction_type"] = schedule.pop("prediction_type")
        if schedule.items() <= asdict(ScheduleConfig()).items():
            return table
        return {**table, "schedule": schedule}

    @classmethod
    def from_dict(cls, table: dict) -> ModelConfig:
        """The reverse of `to_dict`; a setting that is unknown raises `ConfigError`.

        A missing one takes its default: settings that are added later are given defaults that change no older file.
        """
        if isinstance(table, dict):
            table = _with_whole_schedule(table)
            table = {k: _read(_PARTS[k], v, k) if k in _PARTS and v is not None else v for k, v in table.items()}
        return _read(cls, table, "model")


_PARTS = {
    "unet": UNetConfig,
    "retention": RetentionConfig,
    "text_encoder": TextConfig,
    "vae": AutoencoderConfig,
    "resampler": ResamplerConfig,
    "image_encoder": VisionConfig,
    "schedule": ScheduleConfig,
    "sampling": SamplingDefaults,
}


def _table(config: Any) -> dict[str, Any]:
    """The settings of a configuration and of those inside it, but for later ones at their defaults."""
    table = {}
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        if not setting.metadata.get("later") or value != setting.default:
            table[setting.name] = _table(value) if dataclasses.is_dataclass(value) else value
    return table


def _with_whole_schedule(table: dict) -> dict:
    """The model's table with `prediction_type` in its schedule's."""
    rest = {name: value for name, value in table.items() if name != "prediction_type"}
    schedule = table.get("schedule", {})
    if not isinstance(schedule, dict):
        raise ConfigError(f"the configuration of 'schedule' is {shown(schedule)}; allowed: a table of settings")
    if "prediction_type" in schedule:
        raise ConfigError("the schedule has a prediction_type; allowed: one beside the schedule")
    return {**rest, "schedule": {**schedule, **{k: v for k, v in table.items() if k == "prediction_type"}}}


def _read(cls, table: dict, where: str):
    known = {f.name for f in dataclasses.fields(cls)}
    if not isinstance(table, dict):
        raise ConfigError(f"the configuration of {where!r} is {shown(table)}; allowed: a table of settings")
    if set(table) - known:
        raise ConfigError(
            f"the configuration of {where!r} has settings that this version does not know: {shown(sorted(set(table) - known))}"
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


# ModelScope text-to-video 1.7B, with Stable Diffusion 2.1's text encoder and autoencoder.
MODELSCOPE = ModelConfig(
    text_encoder=TextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
        pad_token_id=0,
    ),
    vae=AutoencoderConfig(layout="kl"),
    sampling=SamplingDefaults(steps=50, text_scale=9.0, image_scale=9.0, width=256, height=256),
)
# The paper's sizes, as far as they can be told: Stable Diffusion 2.1 with light temporal layers in every block, of which
# 680M parameters are trained.
PAPER = replace(
    MODELSCOPE,
    unet=UNetConfig(
        transformer_in=False,
        temporal_conv_layers=2,
        temporal_attention="self_attention",
        temporal_attention_everywhere=True,
    ),
)
SPRITES = ModelConfig(
    unet=UNetConfig(
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock3D",) * 2,
        up_block_types=("CrossAttnUpBlock3D",) * 2,
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=64,
        attention_head_dim=32,
        transformer_in=False,
        temporal_conv_layers=2,
        temporal_attention="self_attention",
        temporal_attention_everywhere=True,
        temporal_positions=True,
    ),
    retention=RetentionConfig(image_channels=(24, 48, 96, 96)),
    text_encoder=TextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4),
    vae=AutoencoderConfig(),
    schedule=ScheduleConfig(prediction_type="v_prediction"),
    sampling=SamplingDefaults(steps=5, text_scale=1.15, image_scale=1.15, width=128, height=128),  # docs/notes/training.md
)
PRESETS: dict[str, ModelConfig] = {"modelscope": MODELSCOPE, "paper": PAPER, "sprites": SPRITES}


def _dynamicrafter(unet: UNetConfig, schedule: ScheduleConfig, sampling: SamplingDefaults) -> ModelConfig:
    return ModelConfig(
        unet=unet,
        retention=None,
        text_encoder=MODELSCOPE.text_encoder,
        vae=MODELSCOPE.vae,
        resampler=ResamplerConfig(),
        image_encoder=VisionConfig(),
        schedule=schedule,
        sampling=sampling,
    )


# DynamiCrafter (arXiv 2310.12190), as its public configurations and scripts/run.sh have it. `image_first` with equal scales is
# the guidance of that script. `fps` of 256 is a stride between frames: more is more motion, less is in the others.
DYNAMICRAFTER_256 = _dynamicrafter(
    UNetConfig(in_channels=8, image_latents="repeat", image_cross_attention="learned_scale", fps_embedding=True),
    ScheduleConfig(timestep_spacing="leading", steps_offset=1),
    SamplingDefaults(
        50, 7.5, 7.5, width=256, height=256, num_frames=16, order="image_first", rescaled="prediction", eta=1.0, fps=3
    ),
)
DYNAMICRAFTER_512 = _dynamicrafter(
    replace(DYNAMICRAFTER_256.unet, image_cross_attention="plain"),
    ScheduleConfig(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", base_scale=0.7),
    replace(DYNAMICRAFTER_256.sampling, width=512, height=320, rescale=0.7, fps=24),
)
# From a first picture to a last one; the fps are those of scripts/run_application.sh.
DYNAMICRAFTER_512_INTERP = replace(
    DYNAMICRAFTER_512,
    unet=replace(DYNAMICRAFTER_512.unet, image_latents="ends"),
    sampling=replace(DYNAMICRAFTER_512.sampling, fps=5),
)
DYNAMICRAFTER_1024 = replace(
    DYNAMICRAFTER_512,
    schedule=replace(DYNAMICRAFTER_512.schedule, base_scale=0.3),
    sampling=replace(DYNAMICRAFTER_512.sampling, width=1024, height=576, fps=10),
)
