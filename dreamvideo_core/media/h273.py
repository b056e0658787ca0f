"""Codes of ITU-T H.273, by which video files name their colours; FFmpeg uses the same."""

from __future__ import annotations

# Matrix coefficients, between RGB and luma with chroma.
RGB, BT709, UNTAGGED, BT601, BT2020 = 0, 1, 2, 6, 9
# swscale's own codes of the matrices that it knows, by H.273's.
SWSCALE = {BT709: 1, 4: 4, 5: 5, BT601: 5, 7: 7, BT2020: 9}

# Primaries and transfer characteristics; BT.709 is 1 in all three lists.
DISPLAY_P3 = 12
PQ, HLG = 16, 18

# Ranges, by FFmpeg's codes.
LIMITED, FULL = 1, 2

_HD_LINES = 720


def matrix_of_size(lines: int) -> int:
    """The matrix that players assume for an untagged video: BT.709 from 720 lines on, else BT.601."""
    return BT709 if lines >= _HD_LINES else BT601
