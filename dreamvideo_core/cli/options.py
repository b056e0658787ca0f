"""Options that several commands share, and their checks. Import this module as a whole: `options.Width`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.checks import MAX_SEED, InputError, check_choice, check_number, check_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..models.config import ModelConfig

OWN = "the model's own"

Output = Annotated[Path, typer.Option(help="File to write: .mp4, .webp, .gif; without an ending a folder of PNGs.")]
Image = Annotated[Path | None, typer.Option(help="Picture the clip begins with; none: text to video.")]
EndImage = Annotated[
    Path | None,
    typer.Option(
        "--end-image",
        help="Picture the clip ends with, for models that go from a first to a last one; the same as --image makes a loop.",
    ),
]
Negative = Annotated[str, typer.Option(help="What to keep away from.")]
Fit = Annotated[str, typer.Option(help="How the picture is brought to size: crop, pad or stretch.")]
Fps = Annotated[float, typer.Option(help="Frames per second of the file.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A DreamVideo file, or a diffusers folder.", show_default="the shipped model"),
]
Width = Annotated[int | None, typer.Option("--width", help="Multiple of 8.", show_default=OWN)]
Height = Annotated[int | None, typer.Option("--height", help="Multiple of 8.", show_default=OWN)]
Frames = Annotated[int | None, typer.Option("--frames", help="Length of the clip.", show_default=OWN)]
Steps = Annotated[int | None, typer.Option("--steps", help="Steps of DDIM.", show_default=OWN)]
Eta = Annotated[
    float | None,
    typer.Option("--eta", help="Fresh noise in every step of DDIM: 0 is none, 1 as much as DDPM draws.", show_default=OWN),
]
ModelFps = Annotated[
    int | None,
    typer.Option(
        "--model-fps",
        help="Frame rate that the model is told, if it takes one; fewer is more motion. DynamiCrafter 256 is told a stride "
        "between frames instead: more is more motion.",
        show_default=OWN,
    ),
]
TextScale = Annotated[
    float | None,
    typer.Option("--text-scale", help="How closely to follow the sentence; 1 is no guidance.", show_default=OWN),
]
ImageScale = Annotated[
    float | None,
    typer.Option("--image-scale", help="How closely to keep the picture; 1 is no guidance.", show_default=OWN),
]
Order = Annotated[
    str | None,
    typer.Option("--order", help="Order of guidance: text_first (the paper's) or image_first.", show_default=OWN),
]
Rescale = Annotated[
    float | None,
    typer.Option("--rescale", help="Take back what guidance adds to contrast: 0 nothing, 1 all of it.", show_default=OWN),
]
Anchor = Annotated[
    bool,
    typer.Option("--anchor", help="Take back what the colours of a stage's first frame have drifted from its picture."),
]
Device = Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda:0.", show_default="a GPU where there is one")]
AUTO = "auto"
DTYPE_HELP = (
    "Precision of the model: auto, fp32, fp16 or bf16. auto is bf16 for models over 200M parameters on a device that computes "
    "in it, fp16 for them on an older GPU, and fp32 else."
)
Dtype = Annotated[str, typer.Option("--dtype", help=DTYPE_HELP)]
CudaGraphs = Annotated[bool, typer.Option(help="On an NVIDIA GPU: CUDA graphs, faster for more memory.")]


@dataclass(frozen=True)
class SamplingOptions:
    """The options of every command that samples, by their names; None stands for the model's own."""

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    text_scale: float | None = None
    image_scale: float | None = None
    order: str | None = None
    rescale: float | None = None
    eta: float | None = None
    model_fps: int | None = None

    def check(self, least_frames: int = 1) -> None:
        """Raise `InputError` for a value that is not allowed."""
        from ..models.config import LARGEST_FPS, ORDERS, TIMESTEPS

        if self.order is not None:
            check_choice("--order", self.order, ORDERS)
        for name, value in (("--width", self.width), ("--height", self.height)):
            if value is not None:
                check_size(name, value)
        ranges = (
            ("--frames", self.frames, least_frames, math.inf),
            ("--steps", self.steps, 1, TIMESTEPS),
            ("--text-scale", self.text_scale, 0, math.inf),
            ("--image-scale", self.image_scale, 0, math.inf),
            ("--rescale", self.rescale, 0, 1),
            ("--eta", self.eta, 0, 1),
            ("--model-fps", self.model_fps, 1, LARGEST_FPS),
        )
        for name, value, low, high in ranges:
            if value is not None:
                check_number(name, value, low, high)

    def with_defaults(self, config: ModelConfig) -> dict[str, float | str]:
        """Arguments of `Pipeline.__call__`: the given options, and the model's defaults for the others; else `InputError`."""
        if self.model_fps is not None and not config.unet.fps_embedding:
            raise InputError(f"--model-fps is {self.model_fps}, but this model is told no frame rate; leave it out")
        names = {"frames": "num_frames", "model_fps": "fps"}
        given = {names.get(name, name): value for name, value in asdict(self).items() if value is not None}
        return config.sampling_options() | given


def check_clip(output: Path, fit: str, seed: int, fps: float) -> None:
    """Check the options of every command that writes a clip."""
    from ..media.images import FITS
    from ..media.video import check_output

    check_output(output, "--output")
    check_choice("--fit", fit, FITS)
    check_number("--seed", seed, 0, MAX_SEED)
    check_number("--fps", fps, 1, 240)


def read_pictures(image: Path | None, end_image: Path | None) -> tuple[Tensor | None, Tensor | None]:
    """The pictures of `--image` and `--end-image`, (1, 3, H, W) in [-1, 1] each."""
    from ..media.images import read_image

    named = (("--image", image), ("--end-image", end_image))
    first, last = (None if path is None else read_image(path, name) for name, path in named)
    return first, last


def fitted(pictures: Sequence[Tensor | None], sampling: Mapping[str, Any], fit: str) -> list[Tensor | None]:
    """The pictures at the size that is sampled."""
    from ..media.images import fit_image

    height, width = sampling["height"], sampling["width"]
    return [None if picture is None else fit_image(picture, height, width, fit) for picture in pictures]


def choose_device(name: str | None) -> torch.device:
    """The device `name`, or without a name an accelerator, if there is one. Raises `InputError` if it cannot be used."""
    import torch

    backends = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    available = [kind for kind, backend in backends.items() if backend.is_available()] + ["cpu"]
    if name is None:
        return torch.device(available[0])
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    # torch raises these for a device that is unknown, not built in, or without memory ("meta").
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device is {name!r}, which cannot be used here; allowed: {', '.join(available)}") from error
    return device


def choose_dtype(name: str) -> torch.dtype:
    """The precision `name`: fp32, fp16 or bf16."""
    from ..weights.tensor_files import DTYPES

    check_choice("--dtype", name, list(DTYPES))
    return DTYPES[name]


def choose_precision(name: str) -> torch.dtype | None:
    """The precision of that name for a model; None for auto, which `Pipeline.load` resolves."""
    from ..weights.tensor_files import DTYPES

    check_choice("--dtype", name, [AUTO, *DTYPES])
    return DTYPES.get(name)


def precision_name(dtype: torch.dtype) -> str:
    """What `choose_precision` calls it."""
    from ..weights.tensor_files import DTYPES

    return next(name for name, named in DTYPES.items() if named == dtype)


def check_file(name: str, path: Path | None) -> None:
    """Raise `InputError` if no file can be written to `path`; None is fine."""
    if path is not None and path.is_dir():
        raise InputError(f"{name} is {str(path)!r}, which is a folder; name a file")


def check_folder(name: str, path: Path | None) -> None:
    """Raise `InputError` if `path` can be no folder; None is fine."""
    if path is not None and path.exists() and not path.is_dir():
        raise InputError(f"{name} is {str(path)!r}, which is a file; name a folder")
