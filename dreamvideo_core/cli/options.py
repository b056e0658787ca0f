"""Options that several commands share, and their checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

MAX_SEED = 2**64 - 1
OWN = "the model's own"

OutputOption = Annotated[Path, typer.Option(help="File to write: .mp4, .webp, .gif; without an ending a folder of PNGs.")]
ImageOption = Annotated[Path | None, typer.Option(help="Picture the clip begins with; none: text to video.")]
NegativeOption = Annotated[str, typer.Option(help="What to keep away from.")]
FitOption = Annotated[str, typer.Option(help="How the picture is brought to size: crop, pad or stretch.")]
FpsOption = Annotated[float, typer.Option(help="Frames per second of the file.")]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A DreamVideo file, or a diffusers folder.", show_default="the shipped model"),
]
WidthOption = Annotated[int | None, typer.Option("--width", help="Multiple of 8.", show_default=OWN)]
HeightOption = Annotated[int | None, typer.Option("--height", help="Multiple of 8.", show_default=OWN)]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Length of the clip.", show_default=OWN)]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Steps of DDIM.", show_default=OWN)]
TextScaleOption = Annotated[
    float | None,
    typer.Option("--text-scale", help="How closely to follow the sentence; 1 is no guidance.", show_default=OWN),
]
ImageScaleOption = Annotated[
    float | None,
    typer.Option("--image-scale", help="How closely to keep the picture; 1 is no guidance.", show_default=OWN),
]
OrderOption = Annotated[str, typer.Option("--order", help="Order of guidance: text_first (the paper's) or image_first.")]
AnchorOption = Annotated[bool, typer.Option("--anchor", help="Hold a chain's colours to those of its first picture.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Such as cpu or cuda:0.", show_default="a GPU where there is one")
]


def check_sampling(
    width: int | None,
    height: int | None,
    frames: int | None,
    steps: int | None,
    text_scale: float | None,
    image_scale: float | None,
    order: str,
) -> None:
    """The options that `generate` and `evaluate` share; None stands for the model's own."""
    from ..checks import check_choice, check_number, check_size
    from ..diffusion import TIMESTEPS
    from ..guidance import ORDERS

    check_choice("--order", order, ORDERS)
    for name, value in (("--width", width), ("--height", height)):
        if value is not None:
            check_size(name, value)
    ranges = (
        ("--frames", frames, 1, float("inf")),
        ("--steps", steps, 1, TIMESTEPS),
        ("--text-scale", text_scale, 0, float("inf")),
        ("--image-scale", image_scale, 0, float("inf")),
    )
    for name, value, low, high in ranges:
        if value is not None:
            check_number(name, value, low, high)


def choose_device(name: str | None) -> torch.device:
    """The device of that name, which must be there; without a name the accelerator, where there is one."""
    import torch

    from ..checks import InputError

    backends = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    there = [kind for kind, backend in backends.items() if backend.is_available()] + ["cpu"]
    if name is None:
        return torch.device(there[0])
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    # What torch raises for a device that is unknown, not built in, or without such tensors ("meta").
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device is {name!r}, which cannot be used here; allowed: {', '.join(there)}") from error
    return device
