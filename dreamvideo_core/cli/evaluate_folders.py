"""The part of `dreamvideo evaluate` that measures folders of clips, which any model may have made."""

from __future__ import annotations

from pathlib import Path

from . import options
from .judging import Judging


def compare_folders(
    *,
    judging: Judging,
    generated: list[Path],
    reference: Path | None = None,
    captions: Path | None = None,
    frames: int | None = None,
    size: int | None = None,
    device: str | None = None,
) -> None:
    """Measure the clips in folders, each a model's."""
    from ..common.checks import check_number
    from ..evaluation.captions import read_captions
    from ..evaluation.clips import check_pairs, common_shape, open_sets
    from ..evaluation.comparison import NEED_CAPTIONS, NEED_REFERENCE, Comparison, check_count

    for name, value in (("--frames", frames), ("--size", size)):
        if value is not None:
            check_number(name, value, 1, float("inf"))
    judging.check_given("--reference", reference, NEED_REFERENCE)
    judging.check_given("--captions", captions, NEED_CAPTIONS)
    judging.check()
    sets = open_sets(generated, "--generated")
    true = open_sets([reference], "--reference")[0] if reference else None
    said = read_captions(captions, "--captions") if captions else {}
    named = {f"--generated {clips.label}": clips.paths for clips in sets}
    named |= {"--reference": true.paths} if true else {}
    named |= {"--captions": said} if captions else {}
    names = check_pairs(named)
    check_count(judging.chosen, len(names))
    shape = common_shape([*sets, true] if true else sets, frames, size)
    judges = judging.open(shape, options.choose_device(device))
    protocol = {
        "clips of": ", ".join(str(folder) for folder in generated),
        "prompts": f"captions of {captions}" if captions else "not known here",
        "first frame": f"frame 0 of the clips in {reference} is taken as the picture" if reference else "not known here",
        "seeds": "not known here",
    }
    judging.measure(Comparison(sets, names, shape, judging.chosen, true, said), judges, protocol)
