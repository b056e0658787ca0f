"""Embeddings of frames and captions by OpenAI's CLIP, for CLIP-SIM and FFF_CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from kornia.enhance import normalize
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPConfig, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..common.checks import InputError
from ..media.images import fit_image
from ..models.text_encoder import END_TOKEN, TEXT_TOKENS, tokenize

_NEEDED = "config.json and model.safetensors, as transformers keeps openai/clip-vit-base-patch32"
_BATCH = 16  # frames


class ClipEmbedder:
    """A CLIPModel with OpenAI's vocabulary, such as ViT-B/32."""

    def __init__(self, model: CLIPModel, name: str, device: torch.device):
        self.model, self.name, self.device = model.to(device).eval(), name, device
        self.side = model.config.vision_config.image_size

    @classmethod
    def load(cls, folder: Path, option: str, device: torch.device) -> ClipEmbedder:
        """Read a folder, safetensors only. Raises `InputError` for another kind of folder; `option` is what names it."""
        _check_folder(folder, option)
        try:
            config = CLIPConfig.from_pretrained(folder, local_files_only=True)
            model, loading = CLIPModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            cause = str(error).partition("\n")[0]
            raise InputError(f"{option} is {str(folder)!r}, which cannot be read ({cause}); it needs {_NEEDED}") from error
        if loading["missing_keys"]:  # transformers initialises them at random
            lacking = sorted(loading["missing_keys"])
            raise InputError(
                f"{option} is {str(folder)!r}, which lacks {len(lacking)} weights, {lacking[0]} for one; get it again"
            )
        _check_text(config, folder, option)
        return cls(model.float(), folder.name, device)

    @torch.no_grad()
    def embed_frames(self, frames: Tensor) -> Tensor:
        """Embeddings (T, D) of the middle squares of frames (T, 3, H, W) in [-1, 1], prepared as CLIP's own images."""
        squares = (fit_image(frames.float(), self.side, self.side, "crop").to(self.device) + 1) / 2
        mean, std = (torch.tensor(values, device=self.device) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        batches = normalize(squares, mean, std).split(_BATCH)
        return torch.cat([_embedding(self.model.get_image_features(pixel_values=batch)) for batch in batches]).cpu()

    @torch.no_grad()
    def embed_text(self, caption: str) -> Tensor:
        """The embedding (1, D) of a caption, of which CLIP reads the first 75 tokens."""
        tokens = tokenize([caption]).to(self.device)
        return _embedding(self.model.get_text_features(input_ids=tokens)).cpu()


def _embedding(output) -> Tensor:
    # transformers 4 returns the projected embedding itself, transformers 5 an output object that holds it.
    return output if isinstance(output, Tensor) else output.pooler_output


def _check_folder(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{option} is {str(folder)!r}, which is no folder; give one with {_NEEDED}")
    weights = list(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        what = "config.json" if weights else "weights in .safetensors"
        raise InputError(f"{option} is {str(folder)!r}, in which there are no {what}; it needs {_NEEDED}")


def _check_text(config: CLIPConfig, folder: Path, option: str) -> None:
    text = config.text_config
    if text.vocab_size != END_TOKEN + 1 or text.max_position_embeddings != TEXT_TOKENS + 2:
        raise InputError(
            f"{option} is {str(folder)!r}, whose texts have {text.vocab_size} words and {text.max_position_embeddings} places; "
            f"allowed: OpenAI's CLIP with {END_TOKEN + 1} and {TEXT_TOKENS + 2}, such as ViT-B/32"
        )
