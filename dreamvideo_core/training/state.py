"""The state of a stopped run in safetensors: trained weights, their averages and the optimiser's moments."""

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
    """The state before step `step`, by parameter name; `moments` has the optimiser's tensors by parameter, then by name."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def check_settings(folder: Path, settings: dict, defaults: dict) -> None:
    """Keep the settings that the work in `folder` began with; raises `InputError` if these were others.

    A setting that did not exist then had its default.
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
        raise InputError(
            f"{folder} began with other settings: {was}. Undo that to go on, or begin anew: in another folder, or as a phase "
            "of another name"
        )


def collect_moments(optimizer: torch.optim.Optimizer, names: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The optimiser's state by parameter name; `names` has its parameters by name."""
    return {name: dict(optimizer.state[p]) for name, p in names.items() if p in optimizer.state}


def restore_moments(optimizer: torch.optim.Optimizer, names: dict[str, Tensor], moments: dict) -> None:
    """Put what `collect_moments` returned back into the optimiser.

    Fused kernels need the count of steps, a scalar, on the device; others need it on the CPU. Tensors are copied: `moments`
    may lie in a mapped file, and Windows cannot delete mapped files.
    """
    fused = optimizer.defaults.get("fused")
    for name, moment in moments.items():
        device = names[name].device
        optimizer.state[names[name]] = {k: v.to(device if v.ndim or fused else v.device, copy=True) for k, v in moment.items()}


def save_state(folder: Path, state: TrainingState) -> None:
    """Write `state-STEP.safetensors` atomically, then delete all but the newest two, and leftovers of killed processes."""
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
        with suppress(PermissionError):  # on Windows, another program has it open: it is deleted next time
            old.unlink()


def load_newest_state(folder: Path) -> TrainingState | None:
    """The newest state in `folder`, or None if there is none; raises `InputError` for a damaged one."""
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
        tensor = tensors[key].clone()  # this file is deleted later, and Windows cannot delete mapped files
        if kind in ("weights", "average"):
            getattr(state, kind)[name] = tensor
        else:
            state.moments.setdefault(name, {})[kind] = tensor
    tensors.release()
    return state
