"""ComfyUI inside the test process."""

import sys

from comfy_host.in_process import InProcessComfyUI


def test_stock_nodes_can_be_called(host: InProcessComfyUI):
    (image,) = host.call("EmptyImage", width=8, height=4, batch_size=3, color=0xFF0000)
    assert tuple(image.shape) == (3, 4, 8, 3)
    assert image[0, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_the_packs_modules_are_those_that_comfyui_loaded(host: InProcessComfyUI):
    assert host.module("nodes") is sys.modules[f"{host.pack.__name__}.nodes"]
    assert host.module("nodes") is not sys.modules["nodes"]
