"""How RetentionEncode's values in the conditioning reach the model.

ComfyUI's latents of B clips are (B T) C H W, the T frames of a clip in a row; conditions here have one row per clip.
ComfyUI's own condition classes would repeat rows to the size of the latent batch, so they have subclasses here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
from node_helpers import conditioning_set_values
from torch import Tensor

from ...dreamvideo_core.common.checks import DOWNSCALE, InputError

IMAGE_PREFIX = "retention_"
IMAGE_KEY = "retention_image"
STRENGTH_KEY = "retention_strength"
START_KEY = "retention_start"
END_KEY = "retention_end"
HIDDEN_KEY = "retention_hidden"  # CLIP vision's last hidden state of the picture, (B, N, E)
FRAMES_KEY = "num_video_frames"  # a name that ComfyUI's context windows read
# Inputs of models that see the picture by themselves, in evaluations with the picture and without it.
GREY_KEY = "dreamvideo_grey_hidden"  # CLIP vision's last hidden state of a grey picture, (1, N, E)
LATENTS_KEY = "dreamvideo_image_latents"  # VAE latents of one or two pictures a clip, (B, K, C, h, w)
FPS_KEY = "dreamvideo_fps"
ROWS_KEY = "dreamvideo_rows"  # the tags of a condition's rows; only the model adds them


def with_values(conditioning: list, values: dict[str, Any]) -> list:
    """A CONDITIONING of which every entry has these values too."""
    return conditioning_set_values(conditioning, values)


class ClipImage(comfy.conds.CONDRegular):
    """The image of each clip, (B, 3, H, W); a condition for an area gets the image's part there."""

    def process_cond(self, batch_size: int, area: tuple[int, ...] | None = None, **kwargs: Any) -> ClipImage:
        image = self.cond
        for axis in range(len(area or ()) // 2):
            size, start = area[axis] * DOWNSCALE, area[axis + len(area) // 2] * DOWNSCALE
            image = image.narrow(axis + 2, start, size)
        return self._copy_with(image)


class ClipMaps(comfy.conds.CONDRegular):
    """Latents of each clip's pictures, (B, K, C, h, w); a condition restricted to an area gets that part of them."""

    def process_cond(self, batch_size: int, area: tuple[int, ...] | None = None, **kwargs: Any) -> ClipMaps:
        maps = self.cond
        for axis in range(len(area or ()) // 2):
            maps = maps.narrow(axis + 3, area[axis + len(area) // 2], area[axis])
        return self._copy_with(maps)


class ClipRows(comfy.conds.CONDRegular):
    """A tensor with one row per clip, the same for every area."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> ClipRows:
        return self


class ClipText(comfy.conds.CONDCrossAttn):
    """Text with one row per clip. Texts of different lengths are repeated to a common one, as ComfyUI does."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> ClipText:
        return self


class ClipTags(comfy.conds.CONDRegular):
    """A list with the tags of each clip: what its tensors do not show."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs: Any) -> ClipTags:
        # The area is known only now: ComfyUI gives a condition without one the areas of the others as well.
        return self if area is None else ClipTags([tags.within(tuple(area)) for tags in self.cond])

    def can_concat(self, other: ClipTags) -> bool:
        return True

    def concat(self, others: list[ClipTags]) -> list:
        return sum((o.cond for o in others), list(self.cond))

    def size(self) -> list[int]:
        return [len(self.cond)]


@dataclass(frozen=True)
class Clips:
    """The number of clips in a latent batch, and their length."""

    count: int
    num_frames: int

    @classmethod
    def of(cls, noise: Tensor, num_frames: int | None) -> Clips:
        """The clips of a latent batch; all of it is one clip if `num_frames` is None.

        Raises `InputError` if `num_frames` does not divide the batch.
        """
        frames = noise.shape[0]
        num_frames = frames if num_frames is None else int(num_frames)
        if num_frames < 1 or frames % num_frames:
            raise InputError(
                f"the latent holds {frames} frames, which is no multiple of the conditioning's num_video_frames = "
                f"{num_frames}. Connect the latent output of the same Retention Encode to the sampler, or give both "
                "the same number of frames."
            )
        return cls(frames // num_frames, num_frames)


def agree(conds: Mapping[str, list[dict[str, Any]]]) -> None:
    """Give conditions of a run what only its others have: the clip's length, and the inputs of the picture.

    Raises `InputError` for several lengths.
    """
    conditions = [condition for of_a_kind in conds.values() for condition in of_a_kind]
    for key in (GREY_KEY, LATENTS_KEY, FPS_KEY):
        said = next((condition[key] for condition in conditions if condition.get(key) is not None), None)
        for condition in conditions if said is not None else ():
            if condition.get(IMAGE_KEY) is None:  # with a picture of its own it must have its own
                condition.setdefault(key, said)
    lengths = sorted({int(c[FRAMES_KEY]) for c in conditions if c.get(FRAMES_KEY) is not None})
    if len(lengths) > 1:
        raise InputError(
            f"the conditionings of this run are for clips of {' and '.join(map(str, lengths))} frames "
            f"({FRAMES_KEY}); all must have the same number. Give every Retention Encode of a sampler the same frames."
        )
    for condition in conditions if lengths else ():
        condition[FRAMES_KEY] = lengths[0]


def repeat_rows(tensor: Tensor, clips: int, what: str) -> Tensor:
    """One row per clip, from one row for all or one for each. Raises `InputError` for other numbers of rows."""
    if len(tensor) == clips:
        return tensor
    if len(tensor) == 1:
        return tensor.expand(clips, *tensor.shape[1:]).contiguous()
    raise InputError(f"{what} has {len(tensor)} rows for {clips} clips in the latent; it must have 1 or {clips}")


def check_image_size(image: Tensor, latent: Tensor) -> Tensor:
    """`image` (B, 3, H, W) itself. Raises `InputError` unless it has eight times the latents' size."""
    height, width = (n * DOWNSCALE for n in latent.shape[-2:])
    if tuple(image.shape[-2:]) != (height, width):
        raise InputError(
            f"the retention image is {image.shape[-1]} x {image.shape[-2]}, but the latent stands for {width} x "
            f"{height} pixels. Set width and height of Retention Encode to the latent's size, or use its latent output."
        )
    return image
