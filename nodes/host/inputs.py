"""Checking a node's inputs against its schema: ComfyUI checks values of widgets, but not those that come through links."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ...dreamvideo_core.common.checks import InputError, check_choice, check_number, shown

_NUMBERS = {io.Int.Input: (int, "whole numbers"), io.Float.Input: (float, "numbers")}


def as_declared(node: type[io.ComfyNode], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with numbers and texts converted to the declared types. Raises `InputError` for values that are not allowed."""
    declared = {entry.id: entry for entry in node.define_schema().inputs}
    return {name: _as_declared(declared[name], value) if name in declared else value for name, value in given.items()}


def _as_declared(entry: io.Input, value: Any) -> Any:
    if isinstance(entry, io.Combo.Input):
        check_choice(entry.id, value, entry.options)
    elif isinstance(entry, tuple(_NUMBERS)):
        return _number(entry, value)
    elif isinstance(entry, io.Boolean.Input) and not isinstance(value, numbers.Real):
        raise InputError(f"{entry.id} is {shown(value)}; allowed: true or false")
    elif isinstance(entry, io.String.Input):
        if not isinstance(value, (str, numbers.Real)):
            raise InputError(f"{entry.id} is {shown(value)}; allowed: text")
        return str(value)
    return value


def _number(entry: io.Input, value: Any) -> float:
    kind, allowed = _NUMBERS[type(entry)]
    try:
        number = kind(value)
        if kind is int and not isinstance(value, str) and number != value:
            raise ValueError("a fraction")
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{entry.id} is {shown(value)}; allowed: {allowed} from {entry.min} to {entry.max}") from None
    check_number(entry.id, number, entry.min, entry.max)
    return number
