"""What commands print besides their results: errors in one line, and progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from ..common.progress import columns

ERRORS = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def reported() -> Iterator[None]:
    """Errors that the user can mend become one line on stderr and exit status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = "full" if error.name == "diffusers" else "train"
        message = f"{error.name} is not installed; run in the pack's folder: pip install '.[{extra}]'"
    except (ValueError, OSError) as error:  # InputError is a ValueError
        message = " ".join(str(error).split())
    except RuntimeError as error:
        if "out of memory" not in str(error) and "not enough memory" not in str(error):
            raise
        message = "not enough memory; give a smaller --width and --height, fewer --frames, or another --device"
    else:
        return
    ERRORS.print(f"error: {message}")
    raise typer.Exit(1)


def warn_of_cut_text(text: str, name: str) -> None:
    """Print a line if a text is too long for the encoder."""
    from ..models.text_encoder import TEXT_TOKENS, count_tokens

    tokens = count_tokens(text)
    if tokens > TEXT_TOKENS:
        ERRORS.print(f"{name} has {tokens} tokens; the encoder reads the first {TEXT_TOKENS}, the rest is left out")


def progress_bar(shown: bool = True) -> Progress:
    """A bar that counts, on stderr."""
    return Progress(*columns(MofNCompleteColumn()), console=ERRORS, disable=not shown)
