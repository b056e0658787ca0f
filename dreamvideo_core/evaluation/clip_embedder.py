"""CLIP's view of frames and captions: embeddings for CLIP-SIM and FFF_CLIP, from a folder on this machine."""

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
_AT_ONCE = 16  # frames


class ClipScorer:
    """A CLIPModel that reads OpenAI's vocabulary, such as ViT-B/32."""

    def __init__(self, model: CLIPModel, name: str, device: torch.device):
        self.model, self.name, self.device = model.to(device).eval(), name, device
        self.side = model.config.vision_config.image_size

    @classmethod
    def load(cls, folder: Path, option: str, device: torch.device) -> ClipScorer:
        """Read a folder, safetensors only; `option` is what the person calls it. Raises `InputError` for another folder."""
        _check_folder(folder, option)
        try:
            config = CLIPConfig.from_pretrained(folder, local_files_only=True)
            model, loading = CLIPModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            cause = str(error).partition("\n")[0]
            raise InputError(f"{option} is {str(folder)!r}, which cannot be read ({cause}); it needs {_NEEDED}") from error
        if loading["missing_keys"]:  # transformers would draw them at random
            lacking = sorted(loading["missing_keys"])
            raise InputError(
                f"{option} is {str(folder)!r}, which lacks {len(lacking)} weights, {lacking[0]} for one; get it again"
            )
        _check_text(config, folder, option)
        return cls(model.float(), folder.name, device)

    @torch.no_grad()
    def see(self, frames: Tensor) -> Tensor:
        """Embeddings (T, D) of frames (T, 3, H, W) in [-1, 1]: their middle square, as CLIP's own preparation makes it."""
        square = (fit_image(frames.float(), self.side, self.side, "crop").to(self.device) + 1) / 2

        mean, std = (torch.tensor(values, device=self.device) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        parts = normalize(square, mean, std).split(_AT_ONCE)
        return torch.cat([_embedding(self.model.get_image_features(pixel_values=part)) for part in parts]).cpu()

    @torch.no_grad()
    def read(self, caption: str) -> Tensor:
        """The embedding (1, D) of a caption; what goes beyond CLIP's 75 tokens is cut."""
        tokens = tokenize([caption]).to(self.device)
        return _embedding(self.model.get_text_features(input_ids=tokens)).cpu()


def _embedding(found) -> Tensor:
    # transformers 5 puts the projected embedding into an output object, 4 gives it as it is.
    return found if isinstance(found, Tensor) else found.pooler_output


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
