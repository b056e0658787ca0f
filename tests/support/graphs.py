"""API-format graphs for the tests, small enough to run in a second."""

from __future__ import annotations

from typing import Any

SHIPPED = "dreamvideo_sprites.safetensors (shipped)"
FRAMES, SIZE, STEPS = 4, 32, 2


def node(class_type: str, **inputs: Any) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def image_to_video(picture: str | None = None, prompt: str = "the red circle moves left", **retention: Any) -> dict:
    """Loader "model", texts "positive" and "negative", "retention", "sampler", "decode" and "save"."""
    inputs = {
        "width": SIZE, "height": SIZE, "frames": FRAMES, "batch_size": 1, "fit": "crop", "strength": 1.0, "start": 0.0,
        "end": 1.0, **retention,
    }  # fmt: skip
    graph = {
        "model": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
        "positive": node("CLIPTextEncode", clip=["model", 1], text=prompt),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "retention": node("RetentionEncode", positive=["positive", 0], negative=["negative", 0], **inputs),
        "sampler": node(
            "DualCFGSampler", model=["model", 0], positive=["retention", 0], negative=["retention", 1],
            latent=["retention", 2], seed=3, steps=STEPS, text_scale=2.0, image_scale=1.5, order="text_first",
            sampler="ddim", scheduler="simple", denoise=1.0, rescale=0.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="test"),
    }  # fmt: skip
    if picture is not None:
        graph["picture"] = node("LoadImage", image=picture)
        graph["retention"]["inputs"] |= {"image": ["picture", 0], "vae": ["model", 2]}
    return graph
