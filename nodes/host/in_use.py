"""Parts of models that are loaded and still in use: whoever asks for one again is given the same weights.

With `--cache-none` ComfyUI asks Load DreamVideo again for every node that a chain makes of itself. Nothing is kept alive here:
a part that nobody else holds any more is loaded again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakValueDictionary

Part = TypeVar("Part")

_parts: WeakValueDictionary[Hashable, object] = WeakValueDictionary()


def still_in_use(key: Hashable, load: Callable[[], Part]) -> Part:
    """The part of that key, which `load` makes where nobody holds one; `key` names everything that it depends on."""
    part = _parts.get(key)
    if part is None:
        _parts[key] = part = load()
    return part
