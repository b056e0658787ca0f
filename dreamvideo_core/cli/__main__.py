"""`python -m dreamvideo_core.cli` is the command `dreamvideo`."""

from . import main

main()
