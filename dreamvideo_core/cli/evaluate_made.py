"""The part of `dreamvideo evaluate` that makes clips of a data set first, shared among processes, and measures them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .judging import Judging, words
from .reporting import progress_bar

if TYPE_CHECKING:
    from accelerate import PartialState

    from ..evaluation.clips import Shape
    from ..evaluation.comparison import Comparison
    from ..evaluation.datasets import Dataset
    from ..evaluation.generation import Plan
    from ..sampling.pipeline import Pipeline

_PATIENCE = timedelta(days=7)  # of processes that wait for each other: one of them may have all true clips to read


def compare_modes(
    *,
    sampling: options.SamplingOptions,
    judging: Judging,
    dataset: tuple[str, Path] | None = None,
    world: str = "sprites",
    checkpoint: Path | None = None,
    output: Path | None = None,
    clips: int = 100,
    seed: int = 0,
    modes: str | None = None,
    stride: int = 4,
    device: str | None = None,
    dtype: str = options.AUTO,
) -> None:
    """Make clips of a data set's pictures and captions in each mode, and measure them."""
    from accelerate import PartialState

    from ..evaluation.classifier import SHIPPED_CLASSIFIER
    from ..evaluation.clips import Shape
    from ..evaluation.comparison import check_count
    from ..evaluation.datasets import Selection, open_dataset
    from ..sampling.pipeline import SHIPPED, Pipeline

    name, root = _named(dataset, world)
    if dataset is None:
        judging = judging.with_networks(SHIPPED_CLASSIFIER)
    _check_making(output, clips, seed, stride)
    check_count(judging.chosen, clips)
    wanted = _modes(modes)
    sampling.check()
    judging.check()
    precision = options.choose_precision(dtype)
    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    place = state.device if device is None and state.num_processes > 1 else options.choose_device(device)
    path = checkpoint or SHIPPED
    pipeline = Pipeline.load(path, place, precision)
    data = {"dataset": name, "root": str(root or ""), "clips": clips, "seed": seed, "stride": stride}
    chosen = options.precision_name(pipeline.model.dtype)  # what counts for a folder that is gone on with
    plan = _plan(pipeline, path, wanted, dtype=chosen, **data, **sampling.of(pipeline.config.sampling))
    shape = Shape(plan.num_frames, plan.height, plan.width)
    source = open_dataset(name, root, Selection(*shape.sizes, stride), seed)
    judges = judging.open(shape, place) if state.is_main_process else None
    _make(state, output, plan, source, pipeline)
    if state.is_main_process:
        judging.measure(_comparison(output, plan, shape, judging.chosen), judges, _protocol(output, plan, source))
    state.destroy_process_group()


def _named(dataset: tuple[str, Path] | None, world: str) -> tuple[str, Path | None]:
    """The data set's name and folder; the small world has none."""
    from ..common.checks import check_choice
    from ..evaluation.datasets import DATASETS, SPRITES

    check_choice("--world", world, (SPRITES,))
    if dataset is None:
        return world, None
    check_choice("--dataset", dataset[0], DATASETS)
    return dataset


def _check_making(output: Path | None, clips: int, seed: int, stride: int) -> None:
    from ..common.checks import InputError, check_number

    if output is None:
        raise InputError("--output is not given; name a folder for the clips that are made")
    check_number("--clips", clips, 1, float("inf"))
    check_number("--stride", stride, 1, float("inf"))
    check_number("--seed", seed, 0, options.MAX_SEED - clips)  # every clip's noise has a seed of its own


def _modes(text: str | None) -> tuple[str, ...] | None:
    from ..evaluation.protocol import MODES

    return None if text is None else words("--modes", text, MODES)


def _plan(pipeline: Pipeline, path: Path, modes: tuple[str, ...] | None, **settings) -> Plan:
    """`modes` None is all that the model can."""
    from ..common.checks import InputError
    from ..evaluation.generation import Plan, fingerprint
    from ..evaluation.protocol import MODES

    able = MODES if pipeline.model.retention is not None else ("t2v",)
    if modes is not None and not set(modes) <= set(able):
        raise InputError(
            f"--modes is {','.join(modes)}, but {path.name} has no retention branch: it makes video from text; give t2v"
        )
    return Plan(checkpoint=path.name, weights=fingerprint(path), modes=modes or able, **settings)


def _make(state: PartialState, output: Path, plan: Plan, source: Dataset, pipeline: Pipeline) -> None:
    """One process puts the true clips there, then each makes its share."""
    from ..evaluation.generation import claim, generate, prepare

    if state.is_main_process:
        claim(output, plan)
        with progress_bar() as bar:
            task = bar.add_task("true clips", total=plan.clips)
            prepare(output, plan, source, lambda done: bar.update(task, completed=done))
    state.wait_for_everyone()
    with progress_bar(state.is_main_process) as bar:
        task = bar.add_task("made", total=-(-plan.clips * len(plan.modes) // state.num_processes))
        share = (state.process_index, state.num_processes)
        generate(output, plan, pipeline, share, lambda done: bar.update(task, completed=done))
    state.wait_for_everyone()


def _comparison(output: Path, plan: Plan, shape: Shape, metrics: tuple[str, ...]) -> Comparison:
    """Every mode's clips in the folder, and the true ones."""
    from ..evaluation.captions import read_captions
    from ..evaluation.clips import REFERENCE, ClipSet
    from ..evaluation.comparison import Comparison
    from ..evaluation.generation import CAPTIONS

    captions = read_captions(output / CAPTIONS)
    *sets, true = (ClipSet(label, {name: output / label / name for name in captions}) for label in (*plan.modes, REFERENCE))
    return Comparison(sets, list(captions), shape, metrics, true, captions)


def _protocol(output: Path, plan: Plan, source: Dataset) -> Mapping[str, str]:
    from ..evaluation.generation import skipped

    return {
        "model": f"{plan.checkpoint} ({plan.weights})",
        "data": f"{plan.dataset} {plan.root}".strip(),
        "prompts": f"{source.prompts}; none in i2v",
        "first frame": f"{source.frames}; none in t2v",
        "skipped": f"{skipped(output)} of the data set's clips were too short or broken and were left out",
        "seeds": f"{plan.seed} chooses and orders the clips; clip i, counted from 0, has the noise of {plan.seed} + i",
        "sampling": f"{plan.steps} steps of DDIM, scales {plan.text_scale:g} / {plan.image_scale:g}, {plan.order}",
        "precision": plan.dtype,
    }
