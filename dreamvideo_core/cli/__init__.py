"""The command line: `dreamvideo generate`, `train`, `convert` and the rest. It needs the extra `cli`, training `train`.

Modules that import torch are imported inside the commands, so that --help and mistyped options answer at once.
"""

import os

try:
    import rich  # noqa: F401
    import typer
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing.name} is not installed; run in the pack's folder: pip install '.[cli]'") from None

from ..common.consoles import print_anything
from .chain import chain
from .check import check
from .classifier import train_classifier
from .convert import convert, init_retention
from .evaluate import evaluate
from .generate import generate
from .rate import rate
from .train import train

# On Apple's GPUs, operations that torch lacks there run on the CPU. torch reads this variable at import.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Bring a picture to life with a sentence."""


for command in (generate, chain, check, train, convert, init_retention, evaluate, rate, train_classifier):
    app.command()(command)


def main() -> None:
    """The console command."""
    print_anything()
    app(prog_name="dreamvideo")
