"""Reading recipes: a TOML file with one table per phase, and settings of the command line (`--set`) that override it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from ..common.checks import InputError
from ..common.text_files import read_text
from .recipe import SPRITES, TRAINABLE, Phase, Recipe

RECIPES = Path(__file__).parent / "recipes"
_HELD_OUT = 4  # videos, unless the recipe says otherwise
# The allowed types of a setting, and their name in messages, by its annotation.
_TYPES = {
    "str": (str, "a text"), "int": (int, "a whole number"), "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}  # fmt: skip


def load_recipe(source: str | Path, changes: Sequence[str] = (), data: str | None = None) -> Recipe:
    """Read a recipe: a shipped one by its name (`sprites`), or a TOML file by its path.

    `changes` override settings: `key=value` of the recipe or `phase.key=value` of a phase, with values in TOML. `data`
    replaces the data of every diffusion phase. Raises `InputError`.
    """
    name, table = _read(source)
    tables = table.pop("phases", [])
    if not isinstance(tables, list) or not all(isinstance(phase, dict) for phase in tables):
        raise InputError(f"{name}: phases is {tables!r}; write one [[phases]] table for each")
    for phase in tables:
        if data is not None and phase.get("objective") == "diffusion":
            phase["data"] = data
    for change in changes:
        _change(table, tables, change)
    phases = tuple(_phase(phase, f"{name}, phase {number}") for number, phase in enumerate(tables))
    return _build(Recipe, {**table, "phases": phases}, name)


def _read(source: str | Path) -> tuple[str, dict]:
    """The file's name and its content."""
    path = Path(source)
    if path.suffix != ".toml":
        path = RECIPES / f"{source}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise InputError(f"no recipe {str(source)!r}: give the path of a .toml file or one of: {shipped}")
    text = read_text(path, "the recipe")
    try:
        return path.name, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is no TOML file: {error}") from error


def _change(recipe: dict, phases: list[dict], change: str) -> None:
    """Apply one `key=value` or `phase.key=value` to the tables."""
    path, _, text = change.partition("=")
    phase, _, key = path.strip().rpartition(".")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError) as error:
        advice = 'write key=value or phase.key=value, the value as in TOML, a text in quotes: name="mine"'
        raise InputError(f"--set is {change!r}; {advice}") from error
    named = {str(table.get("name")): table for table in phases}
    if phase and phase not in named:
        raise InputError(f"--set is {change!r}, but there is no such phase; allowed: {', '.join(named)}")
    what, table, cls = ("phase", named[phase], Phase) if phase else ("recipe", recipe, Recipe)
    known = _setting_names(cls)
    if key not in known:
        advice = f"write PHASE.{key}=..." if not phase and key in _setting_names(Phase) else f"allowed: {', '.join(known)}"
        raise InputError(f"--set is {change!r}, but a {what} has no such setting; {advice}")
    if key in ("steps", "epochs"):  # one replaces the other
        table.pop("epochs" if key == "steps" else "steps", None)
    table[key] = value


def _setting_names(cls: type[Phase | Recipe]) -> list[str]:
    return sorted({field.name for field in fields(cls)} - {"phases"})


def _phase(table: dict, where: str) -> Phase:
    trainable = table.get("trainable", [])
    if not isinstance(trainable, list) or not all(isinstance(name, str) for name in trainable):
        raise InputError(f"{where}: trainable is {trainable!r}; allowed: a list out of {', '.join(TRAINABLE)}")
    sizes = table.get("sizes", [list(size) for size in Phase.sizes])
    if not isinstance(sizes, list) or not all(_is_size(size) for size in sizes):
        raise InputError(f"{where}: sizes is {sizes!r}; allowed: a list of [height, width] pairs, such as [[64, 64]]")
    given = {"steps": 0} if "epochs" in table and "steps" not in table else {}
    if table.get("data", SPRITES) != SPRITES:
        given["held_out"] = table.get("held_out", _HELD_OUT)
    return _build(Phase, {**table, **given, "trainable": tuple(trainable), "sizes": tuple(map(tuple, sizes))}, where)


def _is_size(size: object) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)


def _build(cls, table: dict, where: str):
    """A dataclass from a table, whose keys and types are checked against its fields."""
    names = {f.name for f in fields(cls)}
    missing = {f.name for f in fields(cls) if f.default is MISSING} - set(table)
    if missing or set(table) - names:
        problems = [f"unknown: {', '.join(sorted(set(table) - names))}"] if set(table) - names else []
        problems += [f"missing: {', '.join(sorted(missing))}"] if missing else []
        raise InputError(f"{where}: {'; '.join(problems)}. Known settings: {', '.join(sorted(names))}")
    for field in fields(cls):
        types, description = _TYPES.get(field.type, (object, ""))
        value = table.get(field.name, field.default)
        if field.name in table and (not isinstance(value, types) or isinstance(value, bool) != (types is bool)):
            raise InputError(f"{where}: {field.name} is {table[field.name]!r}; it must be {description}")
    return cls(**table)
