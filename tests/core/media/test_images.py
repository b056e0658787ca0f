"""Pictures in: reading them, and fitting them to a clip."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.geometry.transform import resize
from PIL import Image, ImageCms

from dreamvideo_core.common.checks import InputError, check_image, check_size
from dreamvideo_core.media.images import contact_sheet, fit_image, read_image, to_uint8, white_image

PACK = Path(__file__).parents[3]


def quarters(height: int, width: int) -> torch.Tensor:
    """Black left of the middle, white right of it; green above it."""
    image = -torch.ones(1, 3, height, width)
    image[..., width // 2 :] = 1.0
    image[:, 1, : height // 2] = 1.0
    return image


def test_the_empty_image_is_white():
    image = white_image(2, 16, 24)
    assert image.shape == (2, 3, 16, 24) and (image == 1).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (64, 24), (8, 80)])
def test_every_fit_gives_the_size_and_keeps_the_range(fit, size):
    image = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fitted = fit_image(image, *size, fit)
    assert fitted.shape == (2, 3, *size)
    assert image.amin() <= fitted.amin() and fitted.amax() <= image.amax()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_an_image_that_fits_is_not_touched(fit):
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(fit_image(image, 16, 24, fit), image)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_middle_stays_in_the_middle(fit):
    fitted = fit_image(quarters(40, 120), 32, 32, fit)
    torch.testing.assert_close(fitted[0, 0, :, :14], -torch.ones(32, 14), atol=0.05, rtol=0)
    torch.testing.assert_close(fitted[0, 0, :, 18:], torch.ones(32, 14), atol=0.05, rtol=0)
    torch.testing.assert_close(fitted[0, 1, :14], torch.ones(14, 32), atol=0.05, rtol=0)
    torch.testing.assert_close(fitted[0, 1, 18:, :14], -torch.ones(14, 14), atol=0.05, rtol=0)


def test_crop_cuts_the_sides_and_keeps_the_scale():
    image = torch.zeros(1, 3, 32, 96)
    image[..., :24] = image[..., 72:] = 1.0
    assert fit_image(image, 32, 32, "crop").abs().max() < 0.05
    noise = torch.rand(1, 3, 32, 96)
    torch.testing.assert_close(fit_image(noise, 32, 32, "crop"), noise[..., 32:64])


@pytest.mark.parametrize(("share", "left"), [(0.0, 0), (0.25, 16), (0.99, 63)])
def test_crop_keeps_another_place_too(share, left):
    noise = torch.rand(1, 3, 32, 96)
    torch.testing.assert_close(fit_image(noise, 32, 32, "crop", (0.5, share)), noise[..., left : left + 32])


def test_pad_keeps_the_whole_and_repeats_the_border():
    image = torch.zeros(1, 3, 32, 96)
    image[..., 0:8, :], image[..., 24:, :] = 1.0, -1.0
    fitted = fit_image(image, 96, 96, "pad")
    torch.testing.assert_close(fitted[..., 32:64, :], image)
    assert (fitted[..., :32, :] == 1).all() and (fitted[..., 64:, :] == -1).all()


def test_an_unknown_fit():
    with pytest.raises(ValueError, match="fit is 'fill'; allowed: crop, pad, stretch"):
        fit_image(torch.zeros(1, 3, 8, 8), 16, 16, "fill")


@pytest.mark.parametrize("ending", [".png", ".webp", ".jpg"])
def test_reading_gives_the_pixels(tmp_path, ending):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, 12:] = (255, 128, 0)
    path = tmp_path / f"picture{ending}"
    Image.fromarray(pixels).save(path, **({"quality": 100, "subsampling": 0} if ending == ".jpg" else {"lossless": True}))
    image = read_image(path)
    assert image.shape == (1, 3, 16, 24) and image.dtype == torch.float32
    torch.testing.assert_close(image[0, :, 3, 20], torch.tensor([1.0, 128 / 127.5 - 1, -1.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(image[0, :, 3, 3], -torch.ones(3), atol=0.03, rtol=0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (4, 0, 8, 8))
    picture.convert(mode).save(tmp_path / "picture.png")
    image = read_image(tmp_path / "picture.png")
    assert (image[..., :4] == 1).all() and (image[..., 4:] == -1).all()


def test_half_transparent_black_is_grey(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "picture.png")
    torch.testing.assert_close(read_image(tmp_path / "picture.png"), torch.zeros(1, 3, 4, 4), atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", ["L", "I;16", "1"])
def test_grey_pictures_of_any_depth(tmp_path, kind):
    values = {"L": np.uint8([[0, 255]]), "I;16": np.uint16([[0, 65535]]), "1": np.array([[False, True]])}[kind]
    Image.fromarray(values).save(tmp_path / "picture.png")
    assert Image.open(tmp_path / "picture.png").mode == kind
    assert read_image(tmp_path / "picture.png")[0].tolist() == [[[-1.0, 1.0]]] * 3


def test_pictures_from_cameras_are_turned_upright(tmp_path):
    picture = Image.new("RGB", (16, 8))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "picture.jpg", exif=exif)
    assert read_image(tmp_path / "picture.jpg").shape == (1, 3, 16, 8)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_files_are_refused_in_words(tmp_path, data):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"--image is '.*picture\.png', which is no readable picture"):
        read_image(path, "--image")


def test_a_picture_that_was_cut_off(tmp_path):
    path = tmp_path / "picture.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="no readable picture"):
        read_image(path)


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_a_path_without_a_file(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 0, 8), torch.zeros(0, 3, 8, 8)]
)
def test_tensors_that_are_no_images(image):
    with pytest.raises(InputError, match="image has shape"):
        check_image("image", image)


def test_images_with_values_that_are_no_numbers():
    with pytest.raises(InputError, match="no numbers"):
        check_image("image", torch.full((1, 3, 8, 8), float("nan")))


@pytest.mark.parametrize(("value", "near"), [(0, 8), (-8, 8), (7, 8), (65, 64), (70, 72)])
def test_sizes_between_the_multiples_name_the_nearest(value, near):
    with pytest.raises(InputError, match=rf"width is {value}; .*Take {near}$"):
        check_size("width", value)


def test_bytes_of_values():
    assert to_uint8(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 128, 255, 255]


def test_frames_on_a_sheet():
    frames = torch.stack([torch.full((3, 4, 6), v) for v in (-1.0, 0.0, 1.0)])
    sheet = np.array(contact_sheet(frames, columns=2, gap=2))
    assert sheet.shape == (12, 16, 3)
    assert (sheet[0, 0, 0], sheet[0, 8, 0], sheet[6, 0, 0], sheet[6, 8, 0]) == (0, 128, 255, 255)


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.float32([[0, 0.5, 1]]), 1),
        (np.float32([[0, 1, 7]]), 1),  # light beyond white is white
        (np.float32([[0, 100, 255]]), 255),
        (np.float32([[0, 300, 65535]]), 65535),
        (np.float32([[np.nan, 0.5, np.inf]]), 1),
        (np.uint16([[0, 300, 65535]]), 65535),
        (np.int32([[-5, 300, 65535]]), 65535),
        (np.int32([[0, 2**30, 2**31 - 1]]), 2**31 - 1),
        (np.uint32([[0, 2**31, 2**32 - 1]]).view(np.int32), 2**32 - 1),
    ],
)  # fmt: skip
def test_grey_tiffs_of_any_depth(tmp_path, values, white):
    Image.fromarray(values).save(tmp_path / "picture.tif")
    wide = values.view(np.uint32) if white == 2**32 - 1 else values
    expected = np.nan_to_num(wide.astype(np.float64), posinf=0).clip(0, white) / white * 2 - 1
    read = read_image(tmp_path / "picture.tif")
    assert read.shape == (1, 3, *values.shape)
    torch.testing.assert_close(read[0, 0], torch.from_numpy(expected).float(), atol=0.005, rtol=0)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "P", "RGBX"])
def test_red_in_any_mode_is_red(tmp_path, mode):
    red = Image.new("RGB", (16, 16), "red")
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.applyTransform(red, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        picture = red.convert(mode)
    picture.save(tmp_path / "picture.tif")
    torch.testing.assert_close(
        read_image(tmp_path / "picture.tif")[0, :, 3, 3], torch.tensor([1.0, -1.0, -1.0]), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("old", [(40, 30), (8, 200), (200, 3), (1, 9), (240, 320)])
@pytest.mark.parametrize("new", [(64, 24), (256, 256), (8, 80)])
def test_pictures_are_resized_as_kornia_does_it(fit, old, new):
    """kornia resizes the whole picture; ours only what is kept of it."""
    image = torch.rand(2, 3, *old, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scales = [n / o for n, o in zip(new, old, strict=True)]
    scale = {"crop": max(scales), "pad": min(scales), "stretch": None}[fit]
    size = new if scale is None else tuple(max(1, round(n * scale)) for n in old)
    whole = resize(image, size, interpolation="bicubic", antialias=True).clamp(image.min(), image.max())
    places = [torch.arange(n) + int(np.floor((s - n) / 2)) for n, s in zip(new, size, strict=True)]
    rows, columns = (place.clamp(0, s - 1) for place, s in zip(places, size, strict=True))
    torch.testing.assert_close(fit_image(image, *new, fit), whole[..., rows, :][..., columns], atol=2e-4, rtol=0)


LONG = [
    ((8, 8000), (512, 512), "crop"), ((8000, 8), (512, 512), "crop"), ((1, 30000), (64, 64), "crop"),
    ((8, 8000), (512, 512), "pad"), ((8000, 8), (64, 2048), "stretch"), ((1, 1), (1024, 1024), "pad"),
]  # fmt: skip


@pytest.fixture(scope="module")
def memory() -> list[int]:
    """By how many KiB fitting each of `LONG` raises the peak of a process of its own, forked from one with torch."""
    pytest.importorskip("resource")
    code = (
        "import os, resource, torch; from dreamvideo_core.media.images import fit_image\n"
        "fit_image(torch.rand(1, 3, 64, 64), 32, 32); peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"for old, new, fit in {LONG}:\n"
        "    if not os.fork():\n"
        "        image = torch.rand(1, 3, *old); before = peak(); fit_image(image, *new, fit)\n"
        "        print(peak() - before, flush=True); os._exit(0)\n"
        "    assert os.wait()[1] == 0"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACK)
    return [int(line) for line in made.stdout.split()]


@pytest.mark.parametrize("number", range(len(LONG)), ids=[f"{old} to {new} {fit}" for old, new, fit in LONG])
def test_long_narrow_pictures_take_little_memory(memory, number):
    """6,000 MiB for the first as long as the whole picture was enlarged."""
    assert memory[number] < 100 * 1024
