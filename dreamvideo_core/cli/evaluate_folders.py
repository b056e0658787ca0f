"""`dreamvideo evaluate --generated`: measuring folders of clips of any models."""

from __future__ import annotations

from pathlib import Path

from ..common.checks import check_number
from . import options
from .metric_options import MetricOptions


def compare_folders(
    *,
    metric_options: MetricOptions,
    generated: list[Path],
    reference: Path | None = None,
    captions: Path | None = None,
    frames: int | None = None,
    size: int | None = None,
    device: str | None = None,
) -> None:
    """Measure the clips in folders, one folder per model."""
    from ..evaluation.captions import read_captions
    from ..evaluation.clips import check_pairs, common_shape, open_sets
    from ..evaluation.comparison import NEED_CAPTIONS, NEED_REFERENCE, Comparison, check_count

    for name, value in (("--frames", frames), ("--size", size)):
        if value is not None:
            check_number(name, value, 1)
    metric_options.check_given("--reference", reference, NEED_REFERENCE)
    metric_options.check_given("--captions", captions, NEED_CAPTIONS)
    metric_options.check()
    sets = open_sets(generated, "--generated")
    true = open_sets([reference], "--reference")[0] if reference else None
    by_clip = read_captions(captions, "--captions") if captions else {}
    named = {f"--generated {clips.label}": clips.paths for clips in sets}
    named |= {"--reference": true.paths} if true else {}
    named |= {"--captions": by_clip} if captions else {}
    names = check_pairs(named)
    check_count(metric_options.chosen, len(names))
    shape = common_shape([*sets, true] if true else sets, frames, size)
    networks = metric_options.open(shape, options.choose_device(device))
    protocol = {
        "clips of": ", ".join(str(folder) for folder in generated),
        "prompts": f"captions of {captions}" if captions else "not known here",
        "first frame": f"frame 0 of the clips in {reference} is taken as the picture" if reference else "not known here",
        "seeds": "not known here",
    }
    metric_options.measure(Comparison(sets, names, shape, metric_options.chosen, true, by_clip), networks, protocol)
