"""Models of other origin through LoadDreamVideo: diffusers folders, untrained branches, layers laid over. In process."""

from __future__ import annotations

import logging

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from diffusers_folder import write_folder
from sampling import sample


@pytest.fixture(scope="module")
def folder(host: InProcessComfyUI):
    path = host.base.root / "models" / "diffusers" / "small-t2v"
    write_folder(path)
    return path


@pytest.fixture(scope="module")
def core(host: InProcessComfyUI):
    """The pack's own core, as ComfyUI has loaded it."""
    return host.module("dreamvideo_core.sampling.pipeline"), host.module("dreamvideo_core.weights.convert")


@pytest.fixture(scope="module")
def started(host: InProcessComfyUI, folder, core):
    """The same model with an untrained branch, as one file."""
    path = host.base.root / "models" / "dreamvideo" / "started.safetensors"
    path.parent.mkdir(exist_ok=True)
    core[1].init_retention(folder, path)
    return path


def load(host: InProcessComfyUI, name: str, **more):
    return host.call("LoadDreamVideo", checkpoint=name, weight_dtype="default", **more)


def conditioned(host: InProcessComfyUI, clip, image=None):
    texts = [host.call("CLIPTextEncode", clip=clip, text=text)[0] for text in ("a cat walks", "")]
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=image, width=32, height=32, frames=3, batch_size=1,
        fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip


def test_a_diffusers_folder_gives_what_the_pipeline_gives(host, folder, core, caplog):
    with caplog.at_level(logging.INFO, "DreamVideo"):
        model, clip, vae, _ = load(host, "small-t2v")
    assert "small-t2v: no retention branch: text to video only" in caplog.text
    samples = sample(host, model, conditioned(host, clip), steps=3)
    (frames,) = host.call("VAEDecode", vae=vae, samples={"samples": samples})
    ours = core[0].Pipeline.load(folder)("a cat walks", width=32, height=32, num_frames=3, steps=3, text_scale=2.0, seed=3)
    torch.testing.assert_close(frames, (ours[0].movedim(1, -1) + 1) / 2, rtol=0, atol=2e-2)


def test_an_untrained_branch_is_said_and_changes_nothing(host, folder, started, caplog):
    with caplog.at_level(logging.INFO, "DreamVideo"):
        model, clip, _, _ = load(host, "started.safetensors")
    assert "started.safetensors: the retention branch is untrained: the image has no effect yet" in caplog.text
    image = torch.rand(1, 32, 32, 3)
    plain = load(host, "small-t2v")[0]
    with_image = sample(host, model, conditioned(host, clip, image), image_scale=2.0)
    torch.testing.assert_close(with_image, sample(host, plain, conditioned(host, clip)), rtol=1e-5, atol=1e-5)


def test_trained_layers_are_laid_over_their_model(host, folder, started, core):
    pipeline, convert = core
    trained = pipeline.Pipeline.load(started)
    for parameter in trained.model.retention.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    trained.save(started.with_name("trained.safetensors"), dtype=torch.float32)
    convert.convert(
        started.with_name("trained.safetensors"), started.with_name("layers.safetensors"), parts=("retention", "temporal")
    )
    image = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    whole, clip, _, _ = load(host, "trained.safetensors")
    laid, _, vae, _ = load(host, "small-t2v", overlay="layers.safetensors")
    assert vae is not None
    expected = sample(host, whole, conditioned(host, clip, image))
    torch.testing.assert_close(sample(host, laid, conditioned(host, clip, image)), expected, rtol=1e-4, atol=1e-4)
    assert (expected - sample(host, whole, conditioned(host, clip))).abs().max() > 1e-2
    with pytest.raises(ValueError, match=r"layers.safetensors holds trained layers without the U-Net.*as overlay"):
        load(host, "layers.safetensors")
    with pytest.raises(ValueError, match="trained on another kind of model"):
        host.call("LoadDreamVideo", checkpoint="dreamvideo_sprites.safetensors (shipped)", overlay="layers.safetensors")


def test_a_full_size_layout_survives_comfyuis_saver(host, folder, started, core):
    model, clip, vae, _ = load(host, "small-t2v")
    host.call("CheckpointSave", model=model, clip=clip, vae=vae, filename_prefix="checkpoints/small")
    saved = next((host.base.root / "output" / "checkpoints").glob("small*.safetensors"))
    saved.rename(started.with_name("saved.safetensors"))
    again, clip_again, vae_again, _ = load(host, "saved.safetensors")
    pipelines = [core[0].Pipeline.load(path) for path in (folder, started.with_name("saved.safetensors"))]
    frames = torch.rand(1, 1, 3, 16, 16)
    encoded, encoded_again = (pipeline.encode(frames) for pipeline in pipelines)
    torch.testing.assert_close(encoded_again, encoded, rtol=5e-2, atol=5e-2)
    samples = sample(host, model, conditioned(host, clip))
    torch.testing.assert_close(sample(host, again, conditioned(host, clip_again)), samples, rtol=1e-2, atol=1e-2)
    frames, frames_again = (host.call("VAEDecode", vae=v, samples={"samples": samples})[0] for v in (vae, vae_again))
    torch.testing.assert_close(frames_again, frames, rtol=1e-2, atol=1e-2)


def test_the_clip_has_the_weights_of_the_folder(host, folder, core):
    ours = core[0].Pipeline.load(folder).text_encoder.encode(["a cat walks"])
    theirs = host.call("CLIPTextEncode", clip=load(host, "small-t2v")[1], text="a cat walks")[0][0][0]
    torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=5e-3)  # ComfyUI keeps text weights in fp16


def test_a_file_without_a_unet_is_refused(host, folder, core):
    core[1].convert(folder, host.base.root / "models" / "dreamvideo" / "vae-only.safetensors", parts=("vae",))
    with pytest.raises(ValueError, match=r"vae-only.safetensors has no U-Net: it cannot sample"):
        load(host, "vae-only.safetensors")


def test_a_model_folder_is_one_choice(host, folder, tmp_path):
    folder.rename(tmp_path / "away")
    place = host.base.root / "models" / "dreamvideo" / "small-t2v"
    (tmp_path / "away").rename(place)
    names = host.module("nodes.host.files").checkpoint_names()
    place.rename(folder)
    assert [name for name in names if "small-t2v" in name] == ["small-t2v"]


def test_names_that_are_no_model(host, folder):
    with pytest.raises(ValueError, match="overlay is 'gone"):
        load(host, "small-t2v", overlay="gone.safetensors")
