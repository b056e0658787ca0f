"""Conditions of one run that know the clips' length, and others that do not: a batch of two clips is never one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE
from sampling import sample


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")


@pytest.fixture(scope="module")
def texts(host: InProcessComfyUI, loaded: tuple) -> list:
    return [host.call("CLIPTextEncode", clip=loaded[1], text=t)[0] for t in ("the red circle moves left", "")]


def retention(host: InProcessComfyUI, texts: list, frames: int = FRAMES) -> tuple:
    """(positive, negative, latent) of two clips with a picture each."""
    pictures = torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=pictures, width=SIZE, height=SIZE, frames=frames,
        batch_size=2, fit="crop", strength=0.7, start=0.1, end=0.9,
    )  # fmt: skip


def with_frames(conditioning: list, frames: int = FRAMES) -> list:
    return [[text, {**options, "num_video_frames": frames}] for text, options in conditioning]


def ksampler(host: InProcessComfyUI, model: Any, positive: list, negative: list, latent: dict) -> torch.Tensor:
    return host.call(
        "KSampler", model=model, seed=3, steps=2, cfg=2.0, sampler_name="ddim", scheduler="simple", positive=positive,
        negative=negative, latent_image=latent, denoise=1.0,
    )[0]["samples"]  # fmt: skip


def custom(host: InProcessComfyUI, model: Any, guider: Any, latent: dict) -> torch.Tensor:
    (noise,), (sampler,) = host.call("RandomNoise", noise_seed=0), host.call("KSamplerSelect", sampler_name="ddim")
    (sigmas,) = host.call("BasicScheduler", model=model, scheduler="simple", steps=2, denoise=1.0)
    return host.call("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)[
        0
    ]["samples"]


def test_a_negative_of_text_alone_in_our_sampler(host, loaded, texts):
    positive, negative, latent = retention(host, texts)
    expected = sample(host, loaded[0], (positive, negative, latent))
    for plain in (texts[1], with_frames(texts[1])):
        torch.testing.assert_close(sample(host, loaded[0], (positive, plain, latent)), expected, rtol=0, atol=0)
    # And a positive of text alone: a picture that is connected counts.
    torch.testing.assert_close(sample(host, loaded[0], (texts[0], negative, latent)), expected, rtol=0, atol=0)


def test_conditionings_combined_of_text_alone_and_text_with_a_picture(host, loaded, texts):
    positive, negative, latent = retention(host, texts)
    for scales in ({}, {"text_scale": 1.5, "image_scale": 1.5}):
        expected = sample(host, loaded[0], ([*positive, *negative], negative, latent), **scales)
        made = sample(host, loaded[0], ([*texts[1], *positive], texts[1], latent), **scales)
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_stock_samplers(host, loaded, texts):
    positive, _, latent = retention(host, texts)
    expected = ksampler(host, loaded[0], positive, with_frames(texts[1]), latent)
    torch.testing.assert_close(ksampler(host, loaded[0], positive, texts[1], latent), expected, rtol=0, atol=0)
    both = host.call("ConditioningCombine", conditioning_1=positive, conditioning_2=texts[1])[0]
    expected = ksampler(host, loaded[0], [*positive, *with_frames(texts[1])], with_frames(texts[1]), latent)
    torch.testing.assert_close(ksampler(host, loaded[0], both, texts[1], latent), expected, rtol=0, atol=0)

    def dual(middle: list, negative: list) -> torch.Tensor:
        (guider,) = host.call(
            "DualCFGGuider", model=loaded[0], cond1=positive, cond2=middle, negative=negative, cfg_conds=1.5,
            cfg_cond2_negative=2.0, style="regular",
        )  # fmt: skip
        return custom(host, loaded[0], guider, latent)

    torch.testing.assert_close(dual(*texts), dual(*map(with_frames, texts)), rtol=0, atol=0)


def test_lengths_that_disagree_are_refused(host, loaded, texts):
    positive, negative, latent = retention(host, texts)
    words = rf"clips of 2 and {FRAMES} frames \(num_video_frames\); all must have the same number"
    with pytest.raises(ValueError, match=words):
        ksampler(host, loaded[0], positive, with_frames(texts[1], 2), latent)
    with pytest.raises(ValueError, match=words):
        sample(host, loaded[0], (with_frames(positive, 2), negative, latent))
