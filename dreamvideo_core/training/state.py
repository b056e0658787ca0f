"""What a stopped run needs to go on: trained weights, their averages and the optimiser's moments, in safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import atomic

_KEPT = 2
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class TrainingState:
    """Step `step` is the next to be taken; dictionaries are keyed by parameter name."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def check_settings(folder: Path, settings: dict) -> None:
    """Keep in `folder` what its work began with; ValueError when that was something else."""
    path, settings = folder / "settings.json", json.loads(json.dumps(settings))
    if not path.is_file():
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2))
        return
    began = json.loads(path.read_text())
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
    for name, moment in moments.items():
        optimizer.state[names[name]] = {key: value.clone() for key, value in moment.items()}


def save_state(folder: Path, state: TrainingState) -> None:
    """Write `state-STEP.safetensors` atomically and drop all but the newest two."""
    tensors = {f"weights.{k}": v for k, v in state.weights.items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    tensors |= {f"{m}.{k}": v[m] for k, v in state.moments.items() for m in _MOMENTS}
    with atomic(folder / f"state-{state.step:07d}.safetensors") as path:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path, {"step": json.dumps(state.step)})
    for old in sorted(folder.glob("state-*.safetensors"))[:-_KEPT]:
        old.unlink()


def load_newest_state(folder: Path) -> TrainingState | None:
    """The newest state below `folder`, or None where there is none."""
    files = sorted(folder.glob("state-*.safetensors"))
    if not files:
        return None
    state = TrainingState(0, {}, {}, {})
    with safe_open(files[-1], "pt") as file:
        state.step = json.loads(file.metadata()["step"])
        for key in file.keys():
            kind, name = key.split(".", 1)
            if kind in _MOMENTS:
                state.moments.setdefault(name, {})[kind] = file.get_tensor(key)
            else:
                getattr(state, kind)[name] = file.get_tensor(key)
    return state
