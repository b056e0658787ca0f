"""Takes the pictures of the help pages: the pack's nodes in a real browser, after they have run.

python3 scripts/comfyui.py exec python scripts/help_pictures.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.browser import Canvas
from comfy_host.paths import REPOSITORY
from comfy_host.server import Server

from dreamvideo_core.common.files import atomic

# For each workflow: help pages, and the titles of the nodes that their pictures show.
PICTURES = {
    "image_to_video": {
        "LoadDreamVideo": ("Model", "Sentence"),
        "RetentionEncode": ("Picture", "Sentence", "Negative", "Retention"),
        "DualCFGSampler": ("Retention", "Sampler"),
        "FirstFrameFidelity": ("First frame fidelity", "FFF_SSIM"),
    },
    "stock_samplers": {
        "DreamVideoGuider": ("Guider", "Noise", "Sampler choice", "Scheduler", "SamplerCustomAdvanced"),
        "VideoMetrics": ("Frame by frame",),
    },
    "two_stage_chain": {"VideoChain": ("Two sentences", "Hand-over frames of two sentences")},
    "varied_text": {"ClipGrid": ("The picture and frames", "Save the frames")},
}


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(releases.locate(), BaseDirectory(Path(folder))) as server,
        Canvas(server) as canvas,
    ):
        for workflow, pictures in PICTURES.items():
            canvas.open(json.loads((REPOSITORY / "workflows" / f"{workflow}.json").read_text(encoding="utf-8")))
            canvas.queue()
            canvas.wait()
            for node_id, titles in pictures.items():
                path = REPOSITORY / "web" / "docs" / node_id / "node.png"
                with atomic(path) as temporary:
                    temporary.write_bytes(canvas.picture(titles))
                print(path)


if __name__ == "__main__":
    main()
