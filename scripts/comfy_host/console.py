"""Words for the person in front of the terminal. They go to stderr, results go to stdout."""

import sys


def say(message: str) -> None:
    """Tell what happens now."""
    print(message, file=sys.stderr, flush=True)
