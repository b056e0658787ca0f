"""What RetentionEncode leaves in the conditioning, and how it reaches the model.

ComfyUI batches latents frame by frame, (B T) C H W with T frames of a clip in a row; conditions have one row per clip.
Its own condition classes repeat rows to the size of the latent batch, which is wrong for clips: these do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
from node_helpers import conditioning_set_values
from torch import Tensor

from ...dreamvideo_core.common.checks import DOWNSCALE

IMAGE_PREFIX = "retention_"
IMAGE_KEY = "retention_image"
STRENGTH_KEY = "retention_strength"
START_KEY = "retention_start"
END_KEY = "retention_end"
FRAMES_KEY = "num_video_frames"  # ComfyUI's context windows know this name
ROWS_KEY = "dreamvideo_rows"  # the tags of a condition's rows, which only the model adds


def with_values(conditioning: list, values: dict[str, Any]) -> list:
    """A CONDITIONING of which every entry has these values too."""
    return conditioning_set_values(conditioning, values)


class ClipImage(comfy.conds.CONDRegular):
    """The image of each clip, (B, 3, H, W); a condition restricted to an area gets that part of it."""

    def process_cond(self, batch_size: int, area: tuple[int, ...] | None = None, **kwargs: Any) -> ClipImage:
        image = self.cond
        for axis in range(len(area or ()) // 2):
            size, start = area[axis] * DOWNSCALE, area[axis + len(area) // 2] * DOWNSCALE
            image = image.narrow(axis + 2, start, size)
        return self._copy_with(image)


class ClipText(comfy.conds.CONDCrossAttn):
    """Text with one row per clip; lengths are brought together by repetition, as ComfyUI does."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> ClipText:
        return self


class ClipTags(comfy.conds.CONDRegular):
    """A list with one entry per clip: what is to be known of a row that its tensors do not show."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs: Any) -> ClipTags:
        # Known only now: ComfyUI lets a condition without an area have that of another beside its own.
        return self if area is None else ClipTags([tags.within(tuple(area)) for tags in self.cond])

    def can_concat(self, other: ClipTags) -> bool:
        return True

    def concat(self, others: list[ClipTags]) -> list:
        return sum((o.cond for o in others), list(self.cond))

    def size(self) -> list[int]:
        return [len(self.cond)]


@dataclass(frozen=True)
class Clips:
    """How a latent batch falls into clips."""

    count: int
    num_frames: int

    @classmethod
    def of(cls, noise: Tensor, num_frames: int | None) -> Clips:
        """A batch without `num_video_frames` is one clip; one that it does not divide is an error."""
        rows = noise.shape[0]
        num_frames = rows if num_frames is None else int(num_frames)
        if num_frames < 1 or rows % num_frames:
            raise ValueError(
                f"the latent holds {rows} frames, which is no multiple of the conditioning's num_video_frames = "
                f"{num_frames}. Connect the latent output of the same Retention Encode to the sampler, or give both "
                "the same number of frames."
            )
        return cls(rows // num_frames, num_frames)


def agree_on_frames(conds: Mapping[str, list[dict[str, Any]]]) -> None:
    """Give the conditions of a run that say nothing of a clip's length that of the others; raise ValueError for several."""
    conditions = [condition for of_a_kind in conds.values() for condition in of_a_kind]
    lengths = sorted({int(c[FRAMES_KEY]) for c in conditions if c.get(FRAMES_KEY) is not None})
    if len(lengths) > 1:
        raise ValueError(
            f"the conditionings of this run are for clips of {' and '.join(map(str, lengths))} frames "
            f"({FRAMES_KEY}); all must have the same number. Give every Retention Encode of a sampler the same frames."
        )
    for condition in conditions if lengths else ():
        condition[FRAMES_KEY] = lengths[0]


def repeat_rows(tensor: Tensor, clips: int, what: str) -> Tensor:
    """One row per clip, from one row for all or one for each."""
    if len(tensor) == clips:
        return tensor
    if len(tensor) == 1:
        return tensor.expand(clips, *tensor.shape[1:]).contiguous()
    raise ValueError(f"{what} has {len(tensor)} rows for {clips} clips in the latent; it must have 1 or {clips}")


def check_image_size(image: Tensor, latent: Tensor) -> Tensor:
    """The image (B, 3, H, W) must be eight times the latents' size."""
    height, width = (n * DOWNSCALE for n in latent.shape[-2:])
    if tuple(image.shape[-2:]) != (height, width):
        raise ValueError(
            f"the retention image is {image.shape[-1]} x {image.shape[-2]}, but the latent stands for {width} x "
            f"{height} pixels. Set width and height of Retention Encode to the latent's size, or use its latent output."
        )
    return image
