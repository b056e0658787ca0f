"""Parts of models that are loaded and still in use, so that the same weights are not loaded twice.

With `--cache-none`, ComfyUI runs Load DreamVideo again for every node that a chain expands into. References here are weak: a
part that nobody else holds is loaded again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakValueDictionary

Part = TypeVar("Part")

_parts: WeakValueDictionary[Hashable, object] = WeakValueDictionary()


def still_in_use(key: Hashable, load: Callable[[], Part]) -> Part:
    """The part under `key`, which names all that it depends on; loaded by `load` if nobody holds it."""
    part = _parts.get(key)
    if part is None:
        _parts[key] = part = load()
    return part
