"""What a stopped run needs to go on: trained weights, their averages and the optimiser's moments, in safetensors."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..common.checks import InputError
from ..common.files import write_text
from ..common.json_files import read_object
from ..weights.tensor_files import LazyTensors, read_metadata, write_tensors

_KEPT = 2


@dataclass
class TrainingState:
    """Step `step` is the next to be taken; dictionaries are keyed by parameter name, moments by their own name too."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def check_settings(folder: Path, settings: dict, defaults: dict) -> None:
    """Keep in `folder` what its work began with; ValueError when that was something else.

    A setting that did not exist when the work began had its default.
    """
    path, (settings, defaults) = folder / "settings.json", json.loads(json.dumps([settings, defaults]))
    if not path.is_file():
        write_text(path, json.dumps(settings, indent=2))
        return
    written = read_object(path, "the settings that the work began with", advice="Begin anew, in another folder.")
    began = {k: v for k, v in defaults.items() if k in settings} | written
    changed = [k for k in began | settings if began.get(k) != settings.get(k)]
    if changed:
        was = "; ".join(f"{k} was {began.get(k)!r} and is {settings.get(k)!r}" for k in changed)
        raise ValueError(
            f"{folder} began with other settings: {was}. Undo that to go on, or begin anew: in another folder, or as a phase "
            "of another name"
        )


def collect_moments(optimizer: torch.optim.Optimizer, names: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The optimiser's state by parameter name; `names` maps names to the parameters it was made with."""
    return {name: dict(optimizer.state[p]) for name, p in names.items() if p in optimizer.state}


def restore_moments(optimizer: torch.optim.Optimizer, names: dict[str, Tensor], moments: dict) -> None:
    """Undo `collect_moments`. Fused kernels want the single number, the count of steps, on the device; others do not.

    Copies: `moments` may lie in a mapped file, which Windows would not let go of.
    """
    fused = optimizer.defaults.get("fused")
    for name, moment in moments.items():
        device = names[name].device
        optimizer.state[names[name]] = {k: v.to(device if v.ndim or fused else v.device, copy=True) for k, v in moment.items()}


def save_state(folder: Path, state: TrainingState) -> None:
    """Write `state-STEP.safetensors` atomically and drop all but the newest two, and what a killed process left."""
    tensors = {f"weights.{k}": v for k, v in state.weights.items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    tensors |= {f"{moment}.{k}": v for k, moments in state.moments.items() for moment, v in moments.items()}
    try:
        write_tensors(folder / f"state-{state.step:07d}.safetensors", tensors, {"step": json.dumps(state.step)})
    except OSError as error:
        raise OSError(
            f"the state of step {state.step} could not be written to {folder} ({error.strerror or error}); the states there "
            "are whole: make room, and the same command with --resume goes on from the newest"
        ) from error
    for old in (*sorted(folder.glob("state-*.safetensors"))[:-_KEPT], *folder.glob(".state-*.safetensors")):
        with suppress(PermissionError):  # on Windows, while another program reads it: the next time then
            old.unlink()


def load_newest_state(folder: Path) -> TrainingState | None:
    """The newest state below `folder`, or None where there is none; raises `InputError` for one that is damaged."""
    files = sorted(folder.glob("state-*.safetensors"))
    if not files:
        return None
    try:
        tensors = LazyTensors.of_files([files[-1]])
        state = TrainingState(int(read_metadata(files[-1])["step"]), {}, {}, {})
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{files[-1]} is no state of a training, or a damaged one ({error}); delete it, and --resume goes on from the one "
            "before"
        ) from error
    for key in tensors:
        kind, _, name = key.partition(".")
        tensor = tensors[key].clone()  # Windows deletes no file that is mapped, and this one is deleted in time
        if kind in ("weights", "average"):
            getattr(state, kind)[name] = tensor
        else:
            state.moments.setdefault(name, {})[kind] = tensor
    tensors.release()
    return state
