"""`dreamvideo evaluate --dataset`: generating clips of a data set in each mode, on several processes, and measuring them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.checks import MAX_SEED, InputError, check_choice, check_number
from . import options
from .metric_options import MetricOptions, split_words
from .reporting import progress_bar

if TYPE_CHECKING:
    from accelerate import PartialState

    from ..evaluation.clips import ClipShape
    from ..evaluation.comparison import Comparison
    from ..evaluation.datasets import Dataset
    from ..evaluation.generation import Plan
    from ..sampling.pipeline import Pipeline

_TIMEOUT = timedelta(days=7)  # processes wait so long for the main one, which reads all true clips


def compare_modes(
    *,
    sampling: options.SamplingOptions,
    metric_options: MetricOptions,
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
    """Generate clips from a data set's pictures and captions in each mode, and measure them."""
    from accelerate import PartialState

    from ..evaluation.classifier import SHIPPED_CLASSIFIER
    from ..evaluation.clips import ClipShape
    from ..evaluation.comparison import check_count
    from ..evaluation.datasets import Selection, open_dataset
    from ..sampling.pipeline import SHIPPED, Pipeline

    name, root = _named(dataset, world)
    if dataset is None:
        metric_options = metric_options.with_networks(SHIPPED_CLASSIFIER)
    _check_generation(output, clips, seed, stride)
    check_count(metric_options.chosen, clips)
    wanted = _modes(modes)
    sampling.check()
    metric_options.check()
    precision = options.choose_precision(dtype)
    state = PartialState(cpu=device == "cpu", timeout=_TIMEOUT)
    chosen_device = state.device if device is None and state.num_processes > 1 else options.choose_device(device)
    path = checkpoint or SHIPPED
    pipeline = Pipeline.load(path, chosen_device, precision)
    data = {"dataset": name, "root": str(root or ""), "clips": clips, "seed": seed, "stride": stride}
    chosen = options.precision_name(pipeline.model.dtype)  # the precision itself counts for a folder that is resumed
    plan = _plan(pipeline, path, wanted, dtype=chosen, **data, **sampling.with_defaults(pipeline.config))
    shape = ClipShape(plan.num_frames, plan.height, plan.width)
    source = open_dataset(name, root, Selection(*shape.sizes, stride), seed)
    networks = metric_options.open(shape, chosen_device) if state.is_main_process else None
    _generate(state, output, plan, source, pipeline)
    if state.is_main_process:
        comparison = _comparison(output, plan, shape, metric_options.chosen)
        metric_options.measure(comparison, networks, _protocol(output, plan, source))
    state.destroy_process_group()


def _named(dataset: tuple[str, Path] | None, world: str) -> tuple[str, Path | None]:
    """The data set's name and folder; the small world has no folder."""
    from ..evaluation.datasets import DATASETS, SPRITES

    check_choice("--world", world, (SPRITES,))
    if dataset is None:
        return world, None
    check_choice("--dataset", dataset[0], DATASETS)
    return dataset


def _check_generation(output: Path | None, clips: int, seed: int, stride: int) -> None:
    if output is None:
        raise InputError("--output is not given; name a folder for the clips that are made")
    check_number("--clips", clips, 1)
    check_number("--stride", stride, 1)
    check_number("--seed", seed, 0, MAX_SEED - clips)  # clip i has the seed --seed + i


def _modes(text: str | None) -> tuple[str, ...] | None:
    from ..evaluation.protocol import MODES

    return None if text is None else split_words("--modes", text, MODES)


def _plan(pipeline: Pipeline, path: Path, modes: tuple[str, ...] | None, **settings) -> Plan:
    """`modes` may be None, for all that the model can do."""
    from ..evaluation.generation import Plan, fingerprint
    from ..evaluation.protocol import modes_of

    able = modes_of(pipeline.config, path.name)
    if modes is not None and not set(modes) <= set(able):
        made_from = "a picture" if pipeline.config.takes_image else "text, for it has no retention branch"
        raise InputError(
            f"--modes is {','.join(modes)}, but {path.name} makes video from {made_from}; allowed: {', '.join(able)}"
        )
    return Plan(checkpoint=path.name, weights=fingerprint(path), modes=modes or able, **settings)


def _generate(state: PartialState, output: Path, plan: Plan, source: Dataset, pipeline: Pipeline) -> None:
    """The main process writes the true clips, then every process generates its share."""
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


def _comparison(output: Path, plan: Plan, shape: ClipShape, metrics: tuple[str, ...]) -> Comparison:
    """The comparison of every mode's clips with the true ones."""
    from ..evaluation.captions import read_captions
    from ..evaluation.clips import REFERENCE, ClipSet
    from ..evaluation.comparison import Comparison
    from ..evaluation.generation import CAPTIONS

    captions = read_captions(output / CAPTIONS)
    *sets, true = (ClipSet(label, {name: output / label / name for name in captions}) for label in (*plan.modes, REFERENCE))
    return Comparison(sets, list(captions), shape, metrics, true, captions)


def _protocol(output: Path, plan: Plan, source: Dataset) -> Mapping[str, str]:
    from ..evaluation.generation import count_skipped

    return {
        "model": f"{plan.checkpoint} ({plan.weights})",
        "data": f"{plan.dataset} {plan.root}".strip(),
        "prompts": f"{source.prompts}; none in i2v",
        "first frame": f"{source.frames}; none in t2v",
        "skipped": f"{count_skipped(output)} of the data set's clips were too short or broken and were left out",
        "seeds": f"{plan.seed} chooses and orders the clips; clip i, counted from 0, has the noise of {plan.seed} + i",
        "sampling": _sampling(plan),
        "precision": plan.dtype,
    }


def _sampling(plan: Plan) -> str:
    said = [f"{plan.steps} steps of DDIM", f"scales {plan.text_scale:g} / {plan.image_scale:g}", plan.order]
    said += [f"{name} {value:g}" for name, value in (("rescale", plan.rescale), ("eta", plan.eta), ("fps", plan.fps)) if value]
    return ", ".join(said)
