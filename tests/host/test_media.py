"""Pictures and captions as nodes take them."""

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from tiny_font import write_font
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CHINESE = "红圆向右移动"


class Largest(TorchDispatchMode):
    """The number of values in the largest tensor that is made."""

    values = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        sizes = [leaf.untyped_storage().nbytes() // leaf.element_size() for leaf in tree_leaves(made) if torch.is_tensor(leaf)]
        self.values = max([self.values, *(size for size in sizes if size not in self.given)])
        return made

    def __init__(self, *given: torch.Tensor):
        super().__init__()
        self.given = {tensor.numel() for tensor in given}


def frames(count: int) -> torch.Tensor:
    return torch.rand(count, 90, 160, 3)


@pytest.mark.parametrize("clips", [1, 2])
def test_of_many_pictures_only_the_ones_that_are_used_are_converted(host: InProcessComfyUI, clips):
    image, text = frames(40), [[torch.zeros(1, 77, 8), {}]]
    with Largest(image) as largest:
        positive, *_ = host.call(
            "RetentionEncode", positive=text, negative=text, image=image, width=64, height=64, frames=2, batch_size=clips,
            fit="crop", strength=1.0, start=0.0, end=1.0,
        )  # fmt: skip
    assert largest.values <= 2 * image[0].numel()
    attached = next(value for key, value in positive[0][1].items() if key == "retention_image")
    assert len(attached) == 1


def test_a_strip_converts_the_frames_that_it_shows(host: InProcessComfyUI):
    clip = frames(40)
    with Largest(clip) as largest:
        (strip,) = host.call("ClipGrid", clips={"clip0": clip}, captions="", columns=1, show="strip", frames="0 -1")
    assert strip.shape[1:3] == (90, 2 * 160 + 4)
    torch.testing.assert_close(strip[0, :, -160:], clip[-1])
    assert largest.values <= 4 * clip[0].numel()


def test_captions_that_no_font_can_draw_are_words_on_the_node(host: InProcessComfyUI, tmp_path, monkeypatch):
    fonts = host.module("dreamvideo_core.media.fonts")
    monkeypatch.setattr(fonts, "font_folders", lambda: [tmp_path])
    given = {"clips": {"clip0": frames(1), "clip1": frames(1)}, "columns": 2, "show": "moving", "frames": "0"}

    def call(captions: str):
        fonts._font_files.cache_clear()
        fonts._best.cache_clear()
        return host.module("nodes.grid").ClipGrid.execute(captions=captions, **given)

    said = call(f"left\n{CHINESE}").ui["dreamvideo_remark"]
    assert CHINESE in said and "left" not in said and "No font here has all letters" in said[0]
    boxes = call(CHINESE).result[0]
    write_font(tmp_path / "a.ttf", CHINESE)
    drawn = call(CHINESE)
    assert drawn.ui is None and (boxes.shape != drawn.result[0].shape or not torch.equal(boxes, drawn.result[0]))
