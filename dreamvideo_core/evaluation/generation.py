"""Generating clips from a data set's pictures and captions into a folder; a stopped run can be resumed.

    FOLDER/manifest.json     the plan; a folder with another plan is refused
    FOLDER/captions.jsonl    the clips in order; written when all true clips are there
    FOLDER/skipped.jsonl     true clips that cannot be used, and why
    FOLDER/reference/NAME/   a true clip, as PNGs
    FOLDER/ti2v/NAME/        a clip from picture and caption; t2v and i2v beside it
Every clip is written whole or not at all, and depends only on the plan and its number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..common.checks import InputError
from ..common.files import digest, in_order, json_lines, write_text
from ..common.json_files import read_object
from ..media.clip_files import read_clip
from ..media.decoding import UnusableClip
from ..media.video import save_clip
from ..sampling.pipeline import Pipeline
from .captions import read_captions
from .clips import ANY_FPS, REFERENCE
from .datasets import Dataset

CAPTIONS = "captions.jsonl"
_MANIFEST = "manifest.json"
_SKIPPED = "skipped.jsonl"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides a folder's pixels. Clip i has the noise of seed `seed` + i."""

    dataset: str
    root: str
    checkpoint: str
    weights: str
    clips: int
    seed: int
    modes: tuple[str, ...]
    stride: int
    num_frames: int
    height: int
    width: int
    steps: int
    text_scale: float
    image_scale: float
    order: str
    dtype: str = "fp32"
    rescale: float = 0.0
    eta: float = 0.0
    fps: int | None = None

    @property
    def sampling(self) -> dict[str, float | str]:
        """Arguments of `Pipeline.__call__` besides prompt, image and seed."""
        names = ("num_frames", "height", "width", "steps", "text_scale", "image_scale", "order", "rescale", "eta", "fps")
        return {name: getattr(self, name) for name in names}


def fingerprint(path: Path) -> str:
    """A hash of a model's file or folder, in hexadecimal."""
    if path.is_file():
        return digest([path], size=8)
    files = (p for p in path.rglob("*") if p.suffix in (".safetensors", ".json"))
    return digest(in_order(files), size=8)


def claim(folder: Path, plan: Plan) -> None:
    """Write the plan into a new folder. Raises `InputError` for a folder that holds another plan or anything else."""
    path = folder / _MANIFEST
    wanted = json.loads(json.dumps(asdict(plan)))
    if path.is_file():
        # Folders of versions without these choices.
        first = {"dtype": "fp32", "rescale": 0.0, "eta": 0.0, "fps": None}
        found = first | read_object(path, "a manifest of clips", advice="Name another --output.")
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            was = ", ".join(f"{name} {found.get(name)!r} (now {wanted[name]!r})" for name in changed)
            raise InputError(f"--output {str(folder)!r} holds clips that were made otherwise: {was}; name another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output is {str(folder)!r}, which exists and was not made by `evaluate`; name another folder")
    else:
        write_text(path, json.dumps(wanted, indent=2) + "\n")


def prepare(folder: Path, plan: Plan, dataset: Dataset, on_clip: Callable[[int], None] = lambda done: None) -> None:
    """Write the true clips into the folder, unless they are all there; `on_clip` is told how many are.

    Clips that cannot be used are listed, and replaced by the next ones. Raises `InputError` if too few are left.
    """
    if (folder / CAPTIONS).is_file():
        return
    chosen, skipped = [], []
    for clip in dataset.clips:
        target = folder / REFERENCE / clip.name
        try:
            if not target.is_dir():
                save_clip(target, clip.read())
        except UnusableClip as why:
            skipped.append({"path": clip.name, "why": str(why)})
            continue
        chosen.append({"path": clip.name, "caption": clip.caption})
        on_clip(len(chosen))
        if len(chosen) == plan.clips:
            break
    if len(chosen) < plan.clips:
        first = f" ({skipped[0]['path']}: {skipped[0]['why']})" if skipped else ""
        raise InputError(
            f"--clips is {plan.clips}, but {plan.dataset} has {len(chosen)} clips that can be used and {len(skipped)} that "
            f"cannot{first}; give fewer --clips and a new --output"
        )
    write_text(folder / _SKIPPED, json_lines(skipped))
    write_text(folder / CAPTIONS, json_lines(chosen))


def generate(
    folder: Path,
    plan: Plan,
    pipeline: Pipeline,
    share: tuple[int, int] = (0, 1),
    on_clip: Callable[[int], None] = lambda done: None,
) -> None:
    """Generate the missing clips of a prepared folder. `share` is this process's index and the number of processes."""
    captions = read_captions(folder / CAPTIONS)
    jobs = [(index, name, mode) for index, name in enumerate(captions) for mode in plan.modes][share[0] :: share[1]]
    for done, (index, name, mode) in enumerate(jobs, 1):
        target = folder / mode / name
        if not target.is_dir():
            image = None if mode == "t2v" else _picture(folder, name).to(pipeline.device)
            prompt = "" if mode == "i2v" else captions[name]
            save_clip(target, pipeline(prompt, image, seed=plan.seed + index, **plan.sampling)[0])
        on_clip(done)


def count_skipped(folder: Path) -> int:
    """How many true clips could not be used, of a prepared folder."""
    return len((folder / _SKIPPED).read_text(encoding="utf-8").splitlines())


def _picture(folder: Path, name: str) -> torch.Tensor:
    return read_clip(folder / REFERENCE / name, ANY_FPS).frames[:1]
