"""Words for the person in front of the terminal. They go to stderr, results go to stdout."""

import sys


def print_anything() -> None:
    """What the console's encoding lacks, such as an emoji in a file's name, is printed as an escape and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def say(message: str) -> None:
    """Tell what happens now."""
    print(message, file=sys.stderr, flush=True)
