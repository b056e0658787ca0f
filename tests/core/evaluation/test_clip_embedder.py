"""CLIP from a folder, against transformers' own preparation of pictures and texts."""

import pytest
import torch
from metric_networks import write_clip_folder
from PIL import Image
from transformers import CLIPModel

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.clip_embedder import ClipEmbedder
from dreamvideo_core.media.images import to_uint8
from dreamvideo_core.models.text_encoder import tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


def test_pictures_and_texts_are_embedded_as_by_transformers(folder):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    embedder, model = ClipEmbedder.load(folder, "--clip-folder", CPU), CLIPModel.from_pretrained(folder).eval()
    assert embedder.name == "tiny"
    smooth = torch.nn.functional.interpolate(torch.rand(3, 3, 6, 9) * 2 - 1, (48, 72), mode="bicubic").clamp(-1, 1)
    prepare = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pictures = [Image.fromarray(frame.numpy()) for frame in to_uint8(smooth).permute(0, 2, 3, 1).contiguous()]
    words = tokenizer()(["the red circle moves left"], return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=prepare(pictures, return_tensors="pt")["pixel_values"], **words)
    cosine = torch.nn.functional.cosine_similarity
    assert (cosine(embedder.embed_frames(smooth), expected.image_embeds) > 0.999).all()
    assert float(cosine(embedder.embed_text("the red circle moves left"), expected.text_embeds)) == pytest.approx(1, abs=1e-5)


def test_folders_that_cannot_be_used(folder, tmp_path):
    def complaint(path) -> str:
        with pytest.raises(InputError) as error:
            ClipEmbedder.load(path, "--clip-folder", CPU)
        return str(error.value)

    assert "nowhere', which is no folder; give one with config.json" in complaint(tmp_path / "nowhere")
    assert "there are no weights in .safetensors" in complaint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert "there are no config.json" in complaint(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    assert "which cannot be read" in complaint(tmp_path)
    other = write_clip_folder(tmp_path / "short", max_position_embeddings=20)
    assert "49408 words and 20 places; allowed: OpenAI's CLIP with 49408 and 77" in complaint(other)


def test_weights_that_are_missing_are_not_drawn(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if k != "visual_projection.weight"}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"lacks 1 weights, visual_projection.weight for one"):
        ClipEmbedder.load(tmp_path, "--clip-folder", CPU)
