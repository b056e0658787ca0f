"""Reading what raters saved, as the mean ratings of each model (the paper's Table 3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..common.checks import InputError, shown
from ..common.json_files import read_object
from .metrics import measure_interval
from .paper import RATED_CLIPS, RATERS, RATINGS

CRITERIA = ("fidelity", "alignment", "quality")  # in the order of paper.RATINGS
LOWEST, HIGHEST = 1, 5


@dataclass(frozen=True)
class SheetKey:
    """What a sheet hides: the model and the clip's name, by the clip's number on the sheet."""

    sheet: str
    clips: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Ratings:
    """One rater's ratings by `CRITERIA`, for each rated clip's number."""

    rater: str
    values: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Score:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelScores:
    """A model's scores by criterion, and the numbers of its rated clips and raters."""

    scores: Mapping[str, Score]
    clips: int
    raters: int


def read_key(path: Path) -> SheetKey:
    """The key that was written with a sheet; raises `InputError` for another file."""
    table = _read_table(path, "key")
    no_key = InputError(f"key is {str(path)!r}, which is no key; give the file that was written beside the sheet")
    try:
        key = SheetKey(table["sheet"], {number: (clip["model"], clip["clip"]) for number, clip in table["clips"].items()})
    except (KeyError, TypeError, AttributeError):
        raise no_key from None
    if not all(isinstance(text, str) for text in (key.sheet, *chain.from_iterable(key.clips.values()))):
        raise no_key
    return key


def read_ratings(paths: Sequence[Path], key: SheetKey) -> list[Ratings]:
    """The raters' files. Raises `InputError` for a file of another sheet, a rater's second file, and bad values."""
    found: dict[str, Ratings] = {}
    for path in paths:
        ratings = _read_ratings(path, key)
        if ratings.rater in found:
            raise InputError(
                f"{str(path)!r} is a second file of the rater {ratings.rater!r}; give only the last that was saved"
            )
        found[ratings.rater] = ratings
    if not any(ratings.values for ratings in found.values()):
        raise InputError("the results hold no rated clip; give files in which at least one is rated")
    return list(found.values())


def _read_ratings(path: Path, key: SheetKey) -> Ratings:
    table = _read_table(path, "results")
    if not isinstance(table.get("ratings"), dict) or not isinstance(table.get("rater"), str):
        raise InputError(f"{str(path)!r} holds no ratings; give the files that the sheet's page saved")
    if table.get("sheet") != key.sheet:
        raise InputError(
            f"{str(path)!r} is of sheet {shown(table.get('sheet'))}, but the key is of {key.sheet!r}; give the key that was "
            "written with that sheet"
        )
    for number, values in table["ratings"].items():
        if number not in key.clips:
            raise InputError(
                f"{str(path)!r} rates clip {shown(number)} of a sheet of {len(key.clips)}; the file was changed: leave it out"
            )
        _check_values(path, number, values)
    return Ratings(table["rater"], table["ratings"])


def _check_values(path: Path, number: str, values: object) -> None:
    complete = isinstance(values, dict) and set(values) == set(CRITERIA)
    # Not `isinstance`: JSON's true is a bool, and bool is a subclass of int.
    if not complete or any(type(value) is not int or not LOWEST <= value <= HIGHEST for value in values.values()):
        raise InputError(
            f"{str(path)!r} rates clip {number} with {shown(values)}; allowed: {', '.join(CRITERIA)}, each a whole number from "
            f"{LOWEST} to {HIGHEST}. The file was changed: leave it out"
        )


def _read_table(path: Path, name: str) -> dict:
    if not path.is_file():
        raise InputError(f"{name} is {str(path)!r}, and there is no such file; give a file that is there")
    return read_object(path, f"--{name}", advice="Give the file as it was saved.")


def model_scores(ratings: Sequence[Ratings], key: SheetKey) -> dict[str, ModelScores]:
    """The scores of every model with a rated clip: the mean over its clips, each the mean over its raters.

    Intervals are over clips, since ratings of the same clip are not independent.
    """
    by_clip: dict[str, dict[str, list[Mapping[str, int]]]] = defaultdict(lambda: defaultdict(list))
    raters: dict[str, set[str]] = defaultdict(set)
    for of_rater in ratings:
        for number, values in of_rater.values.items():
            model, clip = key.clips[number]
            by_clip[model][clip].append(values)
            raters[model].add(of_rater.rater)
    return {model: _scores(clips, len(raters[model])) for model, clips in sorted(by_clip.items())}


def _scores(clips: Mapping[str, Sequence[Mapping[str, int]]], raters: int) -> ModelScores:
    means = {name: [fmean(values[name] for values in ratings) for ratings in clips.values()] for name in CRITERIA}
    scores = {name: Score(fmean(values), *measure_interval(values)) for name, values in means.items()}
    return ModelScores(scores, len(clips), raters)


def as_table(models: Mapping[str, ModelScores]) -> Table:
    """A table as the paper's Table 3: one row per model, then the paper's own rows."""
    table = Table(box=SIMPLE_HEAD, title=f"mean ratings, {LOWEST} to {HIGHEST}")
    table.add_column("method", overflow="fold")
    for name in (*CRITERIA, "clips", "raters"):
        table.add_column(name, justify="right")
    for model, of_model in models.items():
        cells = (f"{s.mean:.2f} ±{(s.high - s.low) / 2:.2f}" for s in (of_model.scores[name] for name in CRITERIA))
        table.add_row(model, *cells, str(of_model.clips), str(of_model.raters))
    table.add_section()
    for method, values in RATINGS.items():
        table.add_row(f"paper: {method}", *(f"{value:.2f}" for value in values), str(RATED_CLIPS), str(RATERS))
    table.caption = (
        "After ±: half of the 95 % interval over clips, each clip being the mean of its raters. paper: as printed in its "
        "Table 3 (VideoCrafter1 at 320 x 512, DreamVideo at 256 x 256), of other clips and other raters."
    )
    return table
