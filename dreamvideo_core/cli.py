"""The command line: `dreamvideo generate`, `train`, `convert` and the rest. Needs the extra `cli`, training needs `train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing.name} is not installed; run: pip install 'comfyui-dreamvideo[cli]'") from None

if TYPE_CHECKING:
    import torch

    from .checkpoint import Checkpoint

# Whatever imports torch is imported inside the commands, so that --help and a mistyped option answer at once.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_MAX_SEED = 2**64 - 1
_OWN = "the model's own"

CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A DreamVideo file, or a diffusers folder.", show_default="the shipped model"),
]
WidthOption = Annotated[int | None, typer.Option("--width", help="Multiple of 8.", show_default=_OWN)]
HeightOption = Annotated[int | None, typer.Option("--height", help="Multiple of 8.", show_default=_OWN)]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Length of the clip.", show_default=_OWN)]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Steps of DDIM.", show_default=_OWN)]
TextScaleOption = Annotated[
    float | None,
    typer.Option("--text-scale", help="How closely to follow the sentence; 1 is no guidance.", show_default=_OWN),
]
ImageScaleOption = Annotated[
    float | None,
    typer.Option("--image-scale", help="How closely to keep the picture; 1 is no guidance.", show_default=_OWN),
]
SourceArgument = Annotated[Path, typer.Argument(help="A file, or a diffusers folder (unet, text_encoder, vae).")]
TargetArgument = Annotated[Path, typer.Argument(help="The .safetensors file to write.")]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="Of the weights: fp32, fp16 or bf16.", show_default="the source's own")
]
OrderOption = Annotated[str, typer.Option("--order", help="Order of guidance: text_first (the paper's) or image_first.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Such as cpu or cuda:0.", show_default="a GPU where there is one")
]


@app.callback()
def _root() -> None:
    """Bring a picture to life with a sentence."""


@app.command()
def generate(
    output: Annotated[Path, typer.Option(help="File to write: .mp4, .webp, .gif; without an ending a folder of PNGs.")],
    image: Annotated[Path | None, typer.Option(help="Picture the clip begins with; none: text to video.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Sentence that says what moves; none: the picture alone.")] = None,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    checkpoint: CheckpointOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    frames: FramesOption = None,
    fit: Annotated[str, typer.Option(help="How the picture is brought to size: crop, pad or stretch.")] = "crop",
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    order: OrderOption = "text_first",
    seed: Annotated[int, typer.Option(help="The same seed gives the same clip.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second of the file.")] = 8.0,
    device: DeviceOption = None,
) -> None:
    """Make a clip from a picture, a sentence, or both."""
    with _reported():
        from .checks import InputError, check_choice, check_number
        from .images import FITS, fit_image, read_image
        from .pipeline import SHIPPED, Pipeline
        from .video import check_output, save_clip

        if image is None and prompt is None:
            raise InputError("neither --image nor --prompt is given; give one of them or both")
        check_output(output, "--output")
        check_choice("--fit", fit, FITS)
        check_number("--seed", seed, 0, _MAX_SEED)
        check_number("--fps", fps, 1, 240)
        _check_sampling(width, height, frames, steps, text_scale, image_scale, order)
        chosen_device = _device(device)
        picture = None if image is None else read_image(image, "--image")

        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, chosen_device)
        if picture is not None and pipeline.model.retention is None:
            raise InputError(
                f"--image is given, but {path.name} has no retention branch and makes video from text only; "
                "leave --image out, or give another --checkpoint"
            )
        defaults = pipeline.config.sampling
        height, width = height or defaults.height, width or defaults.width
        with _progress() as bar:
            task = bar.add_task("sampling", total=steps or defaults.steps)
            clips = pipeline(
                prompt or "",
                None if picture is None else fit_image(picture, height, width, fit),
                negative=negative,
                num_frames=frames,
                height=height,
                width=width,
                steps=steps,
                text_scale=text_scale,
                image_scale=image_scale,
                order=order,
                seed=seed,
                on_step=lambda done, total: bar.update(task, completed=done, total=total),
            )
        save_clip(output, clips[0], fps)
        typer.echo(output)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe that ships (sprites), or path of a .toml file.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="runs/NAME"),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="A DreamVideo .safetensors file for the first phase to begin with.", show_default="fresh weights"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after so long; --resume goes on.", show_default="until it is done"),
    ] = None,
) -> None:
    """Train a model by a recipe, phase by phase."""
    with _reported():
        from .checks import InputError, check_number
        from .training.recipe import load_recipe
        from .training.run import run_recipe

        if minutes is not None:
            check_number("--minutes", minutes, 0, float("inf"))
        loaded = load_recipe(recipe)
        folder = output or Path("runs") / loaded.name
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output is {str(folder)!r}, which is a file; name a folder")
        if start and not start.is_file():
            raise InputError(f"--start is {str(start)!r}, which is no file; give a DreamVideo .safetensors file")
        result = run_recipe(loaded, folder, start=start, resume=resume, minutes=minutes)
        if result is None:
            _errors.print(f"time is up; the same command with --resume goes on with {folder}")
        else:
            typer.echo(result)


@app.command()
def convert(
    source: SourceArgument,
    target: TargetArgument,
    dtype: DtypeOption = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(help="epsilon or v_prediction, for a source that does not say it.", show_default="the source's own"),
    ] = None,
    parts: Annotated[
        str, typer.Option(help="Which parts; temporal,retention are the layers that the paper trains, to lay over their model.")
    ] = "unet,retention,text_encoder,vae",
) -> None:
    """Make one DreamVideo file out of another file, or out of a diffusers folder."""
    with _reported():
        from .checkpoint import PARTS
        from .checks import check_choice
        from .config import PREDICTIONS
        from .convert import convert as write

        chosen = [part.strip() for part in parts.split(",")]
        for part in chosen:
            check_choice("--parts", part, (*PARTS, "temporal"))
        if prediction_type is not None:
            check_choice("--prediction-type", prediction_type, PREDICTIONS)
        with _writing(source, target, dtype) as (kind, on_tensor):
            written = write(source, target, kind, prediction_type, chosen, on_tensor)
        _say_what_is_in(target, written)


@app.command()
def init_retention(
    source: SourceArgument,
    target: TargetArgument,
    fusion: Annotated[str, typer.Option(help="How the picture meets the latents: add or concat.")] = "add",
    dtype: DtypeOption = None,
) -> None:
    """Give a text-to-video model an untrained retention branch: the copy of its encoder that training starts from."""
    with _reported():
        from .checks import check_choice
        from .config import FUSIONS
        from .convert import init_retention as write

        check_choice("--fusion", fusion, FUSIONS)
        with _writing(source, target, dtype) as (kind, on_tensor):
            written = write(source, target, fusion, kind, on_tensor)
        _say_what_is_in(target, written)


@app.command()
def evaluate(
    clips: Annotated[int, typer.Option(help="How many scenes that nobody trained on.")] = 100,
    world: Annotated[str, typer.Option(help="What is measured on: sprites.")] = "sprites",
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    checkpoint: CheckpointOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    frames: FramesOption = None,
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    order: OrderOption = "text_first",
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    sheets: Annotated[Path | None, typer.Option(help="Folder for pictures of the best, median and worst clips.")] = None,
    device: DeviceOption = None,
) -> None:
    """Count how well a model keeps the picture and follows the sentence, in every mode."""
    with _reported():
        from .checks import InputError, check_choice, check_number
        from .evaluation.protocol import MODES, Protocol, measure
        from .evaluation.report import as_table, summary, write_json, write_sheets
        from .pipeline import SHIPPED, Pipeline

        check_choice("--world", world, ("sprites",))
        check_number("--clips", clips, 1, float("inf"))
        check_number("--seed", seed, 0, _MAX_SEED - clips)  # the noise of every batch has a seed of its own
        _check_sampling(width, height, frames, steps, text_scale, image_scale, order)
        if frames is not None:
            check_number("--frames", frames, 2, float("inf"))
        if json is not None and json.is_dir():
            raise InputError(f"--json is {str(json)!r}, which is a folder; name a file")
        if sheets is not None and sheets.exists() and not sheets.is_dir():
            raise InputError(f"--sheets is {str(sheets)!r}, which is a file; name a folder")
        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, _device(device))
        modes = MODES if pipeline.model.retention is not None else ("t2v",)
        if sheets is not None and modes != MODES:
            raise InputError(f"--sheets is given, but {path.name} has no retention branch to show; leave --sheets out")
        given = {
            "width": width,
            "height": height,
            "num_frames": frames,
            "steps": steps,
            "text_scale": text_scale,
            "image_scale": image_scale,
        }
        chosen = asdict(pipeline.config.sampling) | {k: v for k, v in given.items() if v is not None}
        protocol = Protocol(clips=clips, seed=seed, order=order, modes=modes, **chosen)
        with _progress() as bar:
            task = bar.add_task("measuring", total=clips)
            measured = measure(pipeline, protocol, lambda done: bar.update(task, completed=done))
        report = summary(measured, protocol, path.name)
        Console().print(as_table(report))
        if json is not None:
            write_json(report, json)
        if sheets is not None:
            for sheet in write_sheets(measured, sheets):
                typer.echo(sheet)


def main() -> None:
    """The console command."""
    app(prog_name="dreamvideo")


@contextmanager
def _reported() -> Iterator[None]:
    """Errors that a person can do something about become one line on stderr and exit status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = "full" if error.name == "diffusers" else "train"
        message = f"{error.name} is not installed; run: pip install 'comfyui-dreamvideo[{extra}]'"
    except (ValueError, OSError, FloatingPointError) as error:
        message = " ".join(str(error).split())
    except RuntimeError as error:
        if "out of memory" not in str(error) and "not enough memory" not in str(error):
            raise
        message = "not enough memory; give a smaller --width and --height, fewer --frames, or another --device"
    else:
        return
    _errors.print(f"error: {message}")
    raise typer.Exit(1)


def _check_sampling(
    width: int | None,
    height: int | None,
    frames: int | None,
    steps: int | None,
    text_scale: float | None,
    image_scale: float | None,
    order: str,
) -> None:
    """The options that `generate` and `evaluate` share; None stands for the model's own."""
    from .checks import check_choice, check_number, check_size
    from .diffusion import TIMESTEPS
    from .guidance import ORDERS

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


def _device(name: str | None) -> torch.device:
    """The device of that name, which must be there; without a name the accelerator, where there is one."""
    import torch

    from .checks import InputError

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


@contextmanager
def _writing(source: Path, target: Path, dtype: str | None) -> Iterator[tuple[torch.dtype | None, Callable[[int, int], None]]]:
    """Checks what `convert` and `init-retention` share; gives the type to write and a bar's callback."""
    from .checks import InputError, check_choice
    from .convert import DTYPES

    if dtype is not None:
        check_choice("--dtype", dtype, list(DTYPES))
    if not source.exists():
        raise InputError(f"the source is {str(source)!r}, which does not exist; give a file or a diffusers folder")
    if target.suffix != ".safetensors" or target.is_dir():
        raise InputError(f"the target is {str(target)!r}; give the name of a file that ends in .safetensors")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_errors) as bar:
        task = bar.add_task("writing", total=None)
        yield DTYPES.get(dtype), lambda done, total: bar.update(task, completed=done, total=total)


def _say_what_is_in(path: Path, checkpoint: Checkpoint) -> None:
    from .checkpoint import LACKING

    for part in checkpoint.lacks():
        _errors.print(f"{path.name} has no {LACKING[part]}")
    typer.echo(path)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_errors)


if __name__ == "__main__":
    main()
