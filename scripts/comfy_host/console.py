"""Messages to the user on stderr; results go to stdout."""

import sys


def print_anything() -> None:
    """Print characters that the console's encoding lacks, such as emoji, as escapes, and raise no error."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def say(message: str) -> None:
    """Print a line on stderr."""
    print(message, file=sys.stderr, flush=True)
