"""First frame fidelity of some models in a real ComfyUI server, through the pack's own nodes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host import BaseDirectory, Server, releases

from dreamvideo_core.media.images import to_picture
from dreamvideo_core.sprites import render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded
from dreamvideo_core.weights.sources import open_model

SIZE, FRAMES = 64, 8


def measure_in_comfyui(models: Mapping[str, Path], folder: Path, pictures: int, seed: int) -> dict[str, list[float]]:
    """FFF_SSIM of every picture by every model, and as "ceiling" that of the pictures through the autoencoder alone.

    The pictures are first frames of the test split, which nothing was trained on; `folder` becomes the server's.
    """
    base = BaseDirectory(folder).prepare()
    chosen = base.models / "dreamvideo"
    chosen.mkdir()
    for path in models.values():
        shutil.copyfile(path, chosen / path.name)
    scenes = [_picture(base, seed, number) for number in range(pictures)]
    found: dict[str, list[float]] = {"ceiling": []}
    with Server(releases.locate(), base) as server:
        for name, path in models.items():
            outputs = [server.client.run(_graph(path, *scene)).outputs for scene in scenes]
            found[name] = [_shown(output, "fidelity") for output in outputs]
            found["ceiling"] = [_shown(output, "ceiling") for output in outputs]
    return found


def _picture(base: BaseDirectory, seed: int, number: int) -> tuple[str, str]:
    """The name of a picture in the server's input folder, and what happens next in it."""
    clip = sample_clip(seeded("test", seed, number))
    frame = render_batch([clip], num_frames=1, height=SIZE, width=SIZE)[0, 0]
    name = f"scene{number}.png"
    to_picture(frame).save(base.input / name)
    return name, sentence(clip)


def _shown(outputs: dict[str, dict], node: str) -> float:
    return float(outputs[node]["text"][0])


def _graph(model: Path, picture: str, prompt: str) -> dict[str, dict]:
    """From picture and prompt to the figures; a model without a branch is asked by the prompt alone."""
    config = open_model(model).config
    default, image = config.sampling, {} if config.retention is None else {"image": ["picture", 0], "vae": ["model", 2]}
    return {
        "model": _node("LoadDreamVideo", checkpoint=model.name, weight_dtype="default"),
        "picture": _node("LoadImage", image=picture),
        "positive": _node("CLIPTextEncode", clip=["model", 1], text=prompt),
        "negative": _node("CLIPTextEncode", clip=["model", 1], text=""),
        "retention": _node(
            "RetentionEncode", positive=["positive", 0], negative=["negative", 0], width=SIZE, height=SIZE, frames=FRAMES,
            batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0, **image,
        ),
        "sampler": _node(
            "DualCFGSampler", model=["model", 0], positive=["retention", 0], negative=["retention", 1],
            latent=["retention", 2], seed=0, steps=default.steps, text_scale=default.text_scale,
            image_scale=default.image_scale, order="text_first", sampler="ddim", scheduler="simple", denoise=1.0, rescale=0.0,
        ),
        "frames": _node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "clip": _node("FirstFrameFidelity", image=["picture", 0], frames=["frames", 0], fit="crop"),
        "encoded": _node("VAEEncode", pixels=["picture", 0], vae=["model", 2]),
        "restored": _node("VAEDecode", samples=["encoded", 0], vae=["model", 2]),
        "autoencoder": _node("FirstFrameFidelity", image=["picture", 0], frames=["restored", 0], fit="crop"),
        "fidelity": _node("PreviewAny", source=["clip", 0]),
        "ceiling": _node("PreviewAny", source=["autoencoder", 0]),
    }  # fmt: skip


def _node(class_type: str, **inputs: Any) -> dict:
    return {"class_type": class_type, "inputs": inputs}
