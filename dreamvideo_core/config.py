"""Hyper-parameters of a model, as plain data: what a checkpoint's metadata holds."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field, replace

DOWN_BLOCKS = ("CrossAttnDownBlock3D", "DownBlock3D")
UP_BLOCKS = ("CrossAttnUpBlock3D", "UpBlock3D")
TEMPORAL_ATTENTIONS = ("transformer", "self_attention")
FUSIONS = ("add", "concat")
PREDICTIONS = ("epsilon", "v_prediction")
AUTOENCODERS = ("taesd", "kl")
DOWNSCALE = 8  # pixels of a picture for one of its latents, along each side, in every layout


class ConfigError(ValueError):
    """A configuration that no model can have, or that this version does not know."""


def _choose(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


@dataclass(frozen=True)
class UNetConfig:
    """The primary U-Net. Names follow diffusers' `UNet3DConditionModel`; the temporal ones below are ours.

    `temporal_attention` is "transformer" (ModelScope: projections, two attentions, feed-forward) or
    "self_attention" (one attention alone). `temporal_attention_everywhere` puts one into the blocks without
    cross-attention too, as the paper has it. `temporal_positions` adds sinusoidal frame positions to its queries,
    keys and values. `temporal_conv_layers` is 4 in ModelScope's Temp-Conv. `num_attention_heads` gives spatial attention
    as many heads at every width, as Stable Diffusion 1 has it; without it a head has `attention_head_dim` channels.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",)
    up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1024
    attention_head_dim: int = 64
    num_attention_heads: int | None = None
    transformer_in: bool = True
    temporal_conv_layers: int = 4
    temporal_attention: str = "transformer"
    temporal_attention_everywhere: bool = False
    temporal_positions: bool = False

    def __post_init__(self):
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types):
            raise ConfigError(
                f"block_out_channels, down_block_types and up_block_types have {levels}, {len(self.down_block_types)} "
                f"and {len(self.up_block_types)} entries; all must have as many"
            )
        for name in self.down_block_types:
            _choose("down_block_types", name, DOWN_BLOCKS)
        for name in self.up_block_types:
            _choose("up_block_types", name, UP_BLOCKS)
        _choose("temporal_attention", self.temporal_attention, TEMPORAL_ATTENTIONS)
        for name in ("norm_num_groups", "attention_head_dim", "layers_per_block", "temporal_conv_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for channels in self.block_out_channels:
            for name in ("norm_num_groups", "attention_head_dim", "num_attention_heads"):
                if channels % (getattr(self, name) or 1):
                    raise ConfigError(f"{name} is {getattr(self, name)}, which does not divide block_out_channels' {channels}")

    def spatial_head_dim(self, channels: int) -> int:
        return channels // self.num_attention_heads if self.num_attention_heads else self.attention_head_dim


@dataclass(frozen=True)
class RetentionConfig:
    """The image retention branch: how conv_d(z) and conv_s(I) meet, and conv_s's widths before the U-Net's own.

    Every width after the first halves the picture, so there is one more of them than halvings to the latents' size.
    """

    fusion: str = "add"
    image_channels: tuple[int, ...] = (16, 32, 96, 256)

    def __post_init__(self):
        _choose("fusion", self.fusion, FUSIONS)
        if len(self.image_channels) != 4:
            raise ConfigError(f"image_channels has {len(self.image_channels)} widths; three halvings to 1/8 need 4")


@dataclass(frozen=True)
class TextConfig:
    """A CLIP text encoder; names follow transformers' `CLIPTextConfig`.

    `pad_token_id` fills a text up to its length: the end token in Stable Diffusion 1, 0 in Stable Diffusion 2.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    pad_token_id: int = 49407


@dataclass(frozen=True)
class AutoencoderConfig:
    """`layout` "taesd" is the small autoencoder, "kl" Stable Diffusion's; names follow diffusers' `AutoencoderKL`.

    The settings after `latent_channels` belong to "kl" alone.
    """

    layout: str = "taesd"
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32

    def __post_init__(self):
        _choose("layout", self.layout, AUTOENCODERS)


@dataclass(frozen=True)
class SamplingDefaults:
    """What a model is best sampled with; nodes and the command line start from these."""

    steps: int = 25
    text_scale: float = 1.5
    image_scale: float = 1.5
    width: int = 64
    height: int = 64
    num_frames: int = 8


@dataclass(frozen=True)
class ModelConfig:
    """One file is one model: the configuration of each part that the file holds, None for a part it lacks."""

    unet: UNetConfig | None = field(default_factory=UNetConfig)
    retention: RetentionConfig | None = field(default_factory=RetentionConfig)
    text_encoder: TextConfig | None = None
    vae: AutoencoderConfig | None = None
    prediction_type: str = "epsilon"
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)

    def __post_init__(self):
        _choose("prediction_type", self.prediction_type, PREDICTIONS)
        if self.unet and self.vae and self.unet.in_channels != self.vae.latent_channels:
            raise ConfigError(
                f"the U-Net's in_channels is {self.unet.in_channels} but the autoencoder's latent_channels is "
                f"{self.vae.latent_channels}; they must be equal"
            )
        if self.unet and self.text_encoder and self.unet.cross_attention_dim != self.text_encoder.hidden_size:
            raise ConfigError(
                f"the U-Net's cross_attention_dim is {self.unet.cross_attention_dim} but the text encoder's "
                f"hidden_size is {self.text_encoder.hidden_size}; they must be equal"
            )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict) -> ModelConfig:
        """The reverse of `to_dict`; a setting that is unknown raises `ConfigError`.

        A missing one takes its default: settings that are added later are given defaults that change no older file.
        """
        nested = {
            "unet": UNetConfig,
            "retention": RetentionConfig,
            "text_encoder": TextConfig,
            "vae": AutoencoderConfig,
            "sampling": SamplingDefaults,
        }
        if isinstance(table, dict):
            table = {k: _read(nested[k], v, k) if k in nested and v is not None else v for k, v in table.items()}
        return _read(cls, table, "model")


def _read(cls, table: dict, where: str):
    known = {f.name for f in dataclasses.fields(cls)}
    if not isinstance(table, dict):
        raise ConfigError(f"the configuration of {where!r} is damaged: {table!r} is no table of settings")
    if set(table) - known:
        raise ConfigError(
            f"the configuration of {where!r} has settings that this version does not know: {sorted(set(table) - known)}"
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
    prediction_type="v_prediction",
    sampling=SamplingDefaults(steps=5, text_scale=1.15, image_scale=1.15, width=128, height=128),  # training/NOTES.md
)
PRESETS: dict[str, ModelConfig] = {"modelscope": MODELSCOPE, "paper": PAPER, "sprites": SPRITES}
