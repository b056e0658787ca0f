"""A ComfyUI pack of one node, for soak.py alone: what of the server's memory is in use, and what glibc keeps for later."""

import ctypes
import gc
import json
from collections import Counter

_TYPES = 12


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


class MemoryProbe:
    """Says, as JSON text: bytes that malloc has given out and that it keeps free, those of tensors, and live Python objects."""

    RETURN_TYPES = ()
    FUNCTION = "measure"
    OUTPUT_NODE = True
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"number": ("INT", {}), "trim": ("BOOLEAN", {})}}

    def measure(self, number: int, trim: bool) -> dict:
        gc.collect()
        glibc = ctypes.CDLL(None)
        if trim:
            glibc.malloc_trim(0)
        glibc.mallinfo2.restype = _Mallinfo2
        info = glibc.mallinfo2()
        objects = gc.get_objects()
        figures = {
            "malloc_in_use": info.uordblks + info.hblkhd,
            "malloc_kept_free": info.fordblks,
            "tensor_bytes": _tensor_bytes(objects),
            "objects": len(objects),
            "types": dict(Counter(type(thing).__qualname__ for thing in objects).most_common(_TYPES)),
        }
        return {"ui": {"text": [json.dumps(figures)]}}


def _tensor_bytes(objects: list) -> int:
    """The bytes behind all live tensors, each storage counted once."""
    import torch

    sizes = {}
    for thing in objects:
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


NODE_CLASS_MAPPINGS = {"MemoryProbe": MemoryProbe}
