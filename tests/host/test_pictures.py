"""The pictures of the example workflows."""

from comfy_host.in_process import InProcessComfyUI
from comfy_host.paths import REPOSITORY

NAMES = [picture.name for picture in (REPOSITORY / "pictures").glob("*.png")]


def test_they_are_in_the_input_folder(host: InProcessComfyUI):
    assert NAMES
    assert all(host.base.has_input(name) for name in NAMES)


def test_a_file_of_that_name_stays_as_it_is(host: InProcessComfyUI):
    picture = host.base.input / NAMES[0]
    shipped = picture.read_bytes()
    picture.write_bytes(b"a picture of the user's")
    try:
        host.module("nodes.host.files").offer_pictures()
        assert picture.read_bytes() == b"a picture of the user's"
    finally:
        picture.write_bytes(shipped)
