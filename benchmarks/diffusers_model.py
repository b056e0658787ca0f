"""The same model put together from diffusers' modules, on the very tensors of ours."""

from __future__ import annotations

import torch
from diffusers import UNet3DConditionModel
from einops import rearrange, repeat
from torch import Tensor, nn

from dreamvideo_core.models.config import ModelConfig, UNetConfig
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.sampling.guidance import Evaluation

_ENCODER = ("conv_in", "time_embedding", "transformer_in", "down_blocks", "mid_block")


def diffusers_unet(config: UNetConfig, weights: dict[str, Tensor], strict: bool = True) -> UNet3DConditionModel:
    """diffusers' U-Net with `weights` in it, not copies of them. Without `strict` only the encoder is needed."""
    with torch.device("meta"):
        model = UNet3DConditionModel(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=config.block_out_channels,
            down_block_types=config.down_block_types,
            up_block_types=config.up_block_types,
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_num_groups,
            norm_eps=config.norm_eps,
            cross_attention_dim=config.cross_attention_dim,
            attention_head_dim=config.attention_head_dim,
        )
    model.load_state_dict(weights, strict=strict, assign=True)
    return model.eval()


class DiffusersDreamVideo:
    """A guided step as three calls of diffusers' U-Net, each with the residuals of a branch of diffusers' blocks."""

    def __init__(self, model: DreamVideo, config: ModelConfig):
        self.unet = diffusers_unet(config.unet, model.unet.state_dict())
        self.retention = model.retention  # conv_s and the zero convolutions: diffusers has none
        branch = {k: v for k, v in model.retention.state_dict().items() if k.split(".")[0] in _ENCODER}
        self.branch = diffusers_unet(config.unet, branch, strict=False)
        self.branch.up_blocks, self.branch.conv_norm_out, self.branch.conv_out = nn.ModuleList(), None, None

    def evaluate(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Tensor:
        """f(text, image): latents (B, T, C, H, W), image (B, 3, 8H, 8W)."""
        *skips, mid = self._residuals(latents, timesteps, text, image)
        volume = rearrange(latents, "b t c h w -> b c t h w")
        made = self.unet(
            volume, timesteps, text, down_block_additional_residuals=tuple(skips), mid_block_additional_residual=mid
        )
        return rearrange(made.sample, "b c t h w -> b t c h w")

    def step(
        self, latents: Tensor, timesteps: Tensor, texts: dict[bool, Tensor], images: dict[bool, Tensor],
        weights: dict[Evaluation, float],
    ) -> Tensor:  # fmt: skip
        """The weighted sum of evaluations, each on its own."""
        return sum(weight * self.evaluate(latents, timesteps, texts[e.text], images[e.image]) for e, weight in weights.items())

    def _residuals(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> list[Tensor]:
        branch, retention, num_frames = self.branch, self.retention, latents.shape[1]
        still = repeat(retention.conv_s(image), "b c h w -> (b t) c h w", t=num_frames)
        hidden = branch.conv_in(rearrange(latents, "b t c h w -> (b t) c h w")) + still
        temb = branch.time_embedding(branch.time_proj(timesteps).to(hidden.dtype)).repeat_interleave(num_frames, 0)
        text = text.repeat_interleave(num_frames, 0)
        hidden = branch.transformer_in(hidden, num_frames=num_frames, return_dict=False)[0]
        skips = [hidden]
        for block in branch.down_blocks:
            given = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            hidden, made = block(hidden_states=hidden, temb=temb, num_frames=num_frames, **given)
            skips += made
        mid = branch.mid_block(hidden, temb, encoder_hidden_states=text, num_frames=num_frames)
        return [conv(skip) for conv, skip in zip(retention.zero_convs, skips, strict=True)] + [retention.zero_conv_mid(mid)]
