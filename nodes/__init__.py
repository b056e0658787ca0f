"""The nodes that users place into a graph."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .chain import VideoChain
from .grid import ClipGrid
from .host import lora_names
from .host.files import offer_pictures, register_model_folder
from .loading import LoadDreamVideo
from .measure import FirstFrameFidelity, VideoMetrics
from .retention import RetentionEncode
from .sampling import DreamVideoGuider, DualCFGSampler
from .stage import VideoChainJoin, VideoChainPick, VideoChainStage

register_model_folder()
offer_pictures()
lora_names.register()


class DreamVideoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadDreamVideo,
            RetentionEncode,
            DualCFGSampler,
            DreamVideoGuider,
            VideoChain,
            VideoChainStage,
            VideoChainJoin,
            VideoChainPick,
            ClipGrid,
            FirstFrameFidelity,
            VideoMetrics,
        ]


async def comfy_entrypoint() -> DreamVideoExtension:
    return DreamVideoExtension()
