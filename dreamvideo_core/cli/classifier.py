"""`dreamvideo train-classifier`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.checks import MAX_SEED, InputError, check_number
from .reporting import progress_bar, reported

_VALIDATION_CLIPS = 500


def train_classifier(
    output: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    steps: Annotated[int, typer.Option(help="Of the optimiser.")] = 1500,
    batch: Annotated[int, typer.Option(help="Clips in a step.")] = 32,
    seed: Annotated[int, typer.Option(help="Of weights and clips.")] = 0,
) -> None:
    """Train the small world's classifier, which has the role of I3D and C3D in its FVD and IS."""
    with reported():
        from ..evaluation.classifier import LABELS, save_classifier
        from ..evaluation.classifier_training import measure_classifier
        from ..evaluation.classifier_training import train_classifier as train

        if output.suffix != ".safetensors" or output.is_dir():
            raise InputError(f"--output is {str(output)!r}; give the name of a file that ends in .safetensors")
        check_number("--steps", steps, 1)
        check_number("--batch", batch, 2)  # batch normalisation needs two clips
        check_number("--seed", seed, 0, MAX_SEED)
        with progress_bar() as bar:
            task = bar.add_task("training", total=steps)
            model = train(
                steps,
                batch,
                seed,
                lambda step, loss: bar.update(task, completed=step, description=f"training, loss {loss:.2f}"),
            )
        accuracy = measure_classifier(model, seed, _VALIDATION_CLIPS)
        save_classifier(model, output)
        typer.echo(f"{output}: {accuracy:.3f} of {_VALIDATION_CLIPS} validation clips named rightly, {len(LABELS)} labels")
