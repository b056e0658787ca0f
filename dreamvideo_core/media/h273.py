"""How video files name their colours: codes of ITU-T H.273, which FFmpeg has too."""

from __future__ import annotations

# Matrices: how red, green and blue lie in luma and chroma.
RGB, BT709, UNTAGGED, BT601, BT2020 = 0, 1, 2, 6, 9
# For swscale, which has codes of its own, the matrices that it knows.
SWSCALE = {BT709: 1, 4: 4, 5: 5, BT601: 5, 7: 7, BT2020: 9}

# Primaries and transfer functions; BT.709 has the same code among matrices, primaries and transfer functions.
DISPLAY_P3 = 12
PQ, HLG = 16, 18

# Ranges; these codes are FFmpeg's.
LIMITED, FULL = 1, 2

_HD_LINES = 720


def matrix_of_size(lines: int) -> int:
    """The matrix that players take for a video that names none: BT.709 from 720 lines on, else BT.601."""
    return BT709 if lines >= _HD_LINES else BT601
