"""The paper's Table 2 and Figs. 3 and 7 by its own metrics, on the sprites: three tables and a picture of curves.

    python3 scripts/comfyui.py exec python benchmarks/paper_tables.py --output docs --keep runs/paper_tables

writes paper_tables.md and paper_tables.png. FVD and IS look through the repository's classifier of sprites, which stands
where the paper has I3D and C3D. What is kept is not made again: a stopped run goes on by the same line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from dreamvideo_core.cli.reporting import progress_bar
from dreamvideo_core.common.files import atomic, atomic_folder, write_text
from dreamvideo_core.evaluation.captions import read_captions
from dreamvideo_core.evaluation.chain import ChainProtocol, generate_chain
from dreamvideo_core.evaluation.classifier import SHIPPED_CLASSIFIER
from dreamvideo_core.evaluation.clip_embedder import ClipEmbedder
from dreamvideo_core.evaluation.clips import REFERENCE, ClipSet, ClipShape
from dreamvideo_core.evaluation.comparison import METRICS, Comparison, MetricNetworks, check_count, compare
from dreamvideo_core.evaluation.comparison_report import markdown_table, summary
from dreamvideo_core.evaluation.datasets import SPRITES, Selection, open_dataset
from dreamvideo_core.evaluation.generation import CAPTIONS, Plan, claim, fingerprint, generate, prepare
from dreamvideo_core.evaluation.networks import open_network
from dreamvideo_core.evaluation.paper import PAPER_ROWS
from dreamvideo_core.evaluation.protocol import MODES
from dreamvideo_core.media.clip_files import find_clips
from dreamvideo_core.media.images import contact_sheet
from dreamvideo_core.media.plot import Curve, frame_plot
from dreamvideo_core.media.video import save_clip
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites import render

OTHER_SCALES = (1.0, 2.5, 4.0)  # of the image, besides the model's own
STAGES = 8
OWN_SCALES = "own_scales"
WITHOUT_CLIP = ("fvd", "is", "fff_ssim")


def main(
    output: Annotated[Path, typer.Option(help="Folder for paper_tables.md and paper_tables.png.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row of Table 2 and Fig. 3.")] = 64,
    chains: Annotated[int, typer.Option(help="Chains for every row of Fig. 7.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for the clips that are made.", show_default="none")] = None,
    clip_folder: Annotated[
        Path | None, typer.Option(help="CLIP ViT-B/32, as transformers keeps it.", show_default="no CLIP-SIM, no FFF_CLIP")
    ] = None,
) -> None:
    check_count(WITHOUT_CLIP, min(clips, chains))
    pipeline = Pipeline.load(checkpoint)
    plan = _plan(pipeline, checkpoint, clips, seed)
    networks = _networks(plan, clip_folder)
    with TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        by_label = _measure_clips(folder, pipeline, plan, networks)
        stages = _measure_chains(folder / "chains", pipeline, plan, chains, networks)
    modes = by_label | {"rows": [row for row in by_label["rows"] if row["label"] in (*MODES, REFERENCE)]}
    scales = by_label | {"rows": _by_scale(by_label["rows"], plan)}
    command = f"--clips {clips} --chains {chains} --seed {seed}" + (f" --clip-folder {clip_folder}" if clip_folder else "")
    write_text(output / "paper_tables.md", "\n".join(_document(modes, scales, stages, plan, command)))
    with atomic(output / "paper_tables.png") as path:
        _picture(scales, stages).save(path)


def _plan(pipeline: Pipeline, checkpoint: Path, clips: int, seed: int) -> Plan:
    """Every mode at the model's own scales."""
    return Plan(
        dataset=SPRITES,
        root="",
        checkpoint=checkpoint.name,
        weights=fingerprint(checkpoint),
        clips=clips,
        seed=seed,
        modes=MODES,
        stride=1,
        **pipeline.config.sampling_options(),
    )


def _networks(plan: Plan, clip_folder: Path | None) -> MetricNetworks:
    network = {"shape": _shape(plan).sizes, "device": torch.device("cpu")}
    return MetricNetworks(
        open_network(SHIPPED_CLASSIFIER, "the classifier", "features", **network),
        open_network(SHIPPED_CLASSIFIER, "the classifier", "logits", **network),
        ClipEmbedder.load(clip_folder, "--clip-folder", network["device"]) if clip_folder else None,
    )


def _shape(plan: Plan) -> ClipShape:
    return ClipShape(plan.num_frames, plan.height, plan.width)


def _measure_clips(folder: Path, pipeline: Pipeline, plan: Plan, networks: MetricNetworks) -> dict:
    """A row for each mode at the model's own scales, and for "ti2v" at each of the other image scales."""
    own = folder / OWN_SCALES
    _make_clips(own, plan, pipeline)
    sets = [ClipSet(mode, find_clips(own / mode)) for mode in plan.modes]
    for scale in sorted({*OTHER_SCALES} - {plan.image_scale}):
        other = folder / f"image_scale_{scale:g}"
        _make_clips(other, replace(plan, image_scale=scale, modes=("ti2v",)), pipeline)
        sets.append(ClipSet(_said(scale), find_clips(other / "ti2v")))
    true, captions = ClipSet(REFERENCE, find_clips(own / REFERENCE)), read_captions(own / CAPTIONS)
    metrics = METRICS if networks.clip else WITHOUT_CLIP
    return _measured(Comparison(sets, list(captions), _shape(plan), metrics, true, captions), networks)


def _said(scale: float) -> str:
    return f"image scale {scale:g}"


def _make_clips(folder: Path, plan: Plan, pipeline: Pipeline) -> None:
    claim(folder, plan)
    prepare(folder, plan, open_dataset(SPRITES, None, Selection(*_shape(plan).sizes, plan.stride), plan.seed))
    with progress_bar() as bar:
        task = bar.add_task(folder.name, total=plan.clips * len(plan.modes))
        generate(folder, plan, pipeline, on_clip=lambda done: bar.update(task, completed=done))


def _measured(comparison: Comparison, networks: MetricNetworks) -> dict:
    return summary(compare(comparison, networks), comparison, networks, {})


def _by_scale(rows: Sequence[dict], plan: Plan) -> list[dict]:
    """The rows of "ti2v" in the order of their image scales, then the true clips."""
    found = {row["label"]: row for row in rows}
    found[_said(plan.image_scale)] = found["ti2v"] | {"label": _said(plan.image_scale)}
    return [*(found[_said(scale)] for scale in sorted({*OTHER_SCALES, plan.image_scale})), found[REFERENCE]]


def _measure_chains(folder: Path, pipeline: Pipeline, plan: Plan, chains: int, networks: MetricNetworks) -> dict:
    """Two rows a stage: the clips made there, and the true ones that they are compared with."""
    claim(folder, replace(plan, dataset=f"{SPRITES}, chains of {STAGES} stages", clips=chains, modes=("ti2v",)))
    protocol = ChainProtocol(chains=chains, stages=STAGES, seed=plan.seed, **pipeline.config.sampling_options())
    names = [f"chain{index:05d}" for index in range(chains)]
    for index, name in enumerate(track(names, "chains", console=Console(stderr=True))):
        if not (folder / name).is_dir():
            _save_chain(folder / name, pipeline, protocol, index)
    rows = []
    for stage in range(1, STAGES + 1):
        made, true = (ClipSet(kind, {name: folder / name / f"{kind}{stage}" for name in names}) for kind in ("made", "true"))
        found = _measured(Comparison([made], names, _shape(plan), WITHOUT_CLIP, true), replace(networks, clip=None))
        labels = (f"stage {stage}", f"stage {stage}, true clips")
        rows += [row | {"label": label} for row, label in zip(found["rows"], labels, strict=True)]
    return found | {"rows": rows}


def _save_chain(folder: Path, pipeline: Pipeline, protocol: ChainProtocol, index: int) -> None:
    """made1, true1, made2, ... in a folder that appears whole or not at all."""
    clips, made = generate_chain(pipeline, protocol, index)
    with atomic_folder(folder) as temporary:
        for stage, (clip, frames) in enumerate(zip(clips, made, strict=True), 1):
            save_clip(temporary / f"made{stage}", frames)
            save_clip(temporary / f"true{stage}", render(clip, **protocol.size))


def _document(modes: dict, scales: dict, stages: dict, plan: Plan, command: str) -> Iterator[str]:
    yield "# The paper's Table 2 and Figs. 3 and 7, on moving shapes\n"
    yield "The paper's Table 2 and Figs. 3 and 7 (arXiv 2312.03018) by its own metrics, on scenes of the small world's test"
    yield f"split at {plan.width} x {plan.height} x {plan.num_frames}. The model is {plan.checkpoint} ({plan.weights}), with"
    yield f"{plan.steps} steps and its own scales of text and image, {plan.text_scale:g} / {plan.image_scale:g}. Made by"
    yield f"`python3 scripts/comfyui.py exec python benchmarks/paper_tables.py {command}`.\n"
    yield "FVD and IS look through the repository's classifier of sprites, where the paper has I3D and C3D. Both depend on the"
    yield "number of clips, N: compare rows of one table, not tables with each other, and none with the paper's figures, which"
    yield "stand in columns of their own. After ±: half of the 95 % interval over clips. Rows of true clips, called"
    yield f"`{REFERENCE}` where they are the same for all, say what those get by the same measures."
    yield from _section(
        f"Table 2: a sentence, a picture, or both; N = {modes['clips']}",
        modes,
        "The paper prints no row for a picture alone; it shows one in Fig. 6.",
        paper_rows=[row for row in PAPER_ROWS if row.table == 2],
    )
    yield from _section(
        f"Fig. 3: image scales; N = {scales['clips']}",
        scales,
        "A sentence and a picture, at the model's own text scale; [brightness.md](brightness.md) has brightness and contrast.",
    )
    yield from _section(
        f"Fig. 7: 1 to {STAGES} stages; N = {stages['clips']}",
        stages,
        "Each stage has a sentence of its own and begins with the last frame of the one before. Its clips are compared with the"
        "\ntrue clips of that stage, FFF_SSIM its first frame with the true one.",
    )
    yield "\n![FVD, IS and FFF_SSIM by stage; SSIM to the picture over the frames, by image scale](paper_tables.png)\n"


def _section(title: str, report: dict, said: str, paper_rows: Sequence = ()) -> Iterator[str]:
    yield f"\n## {title}\n\n{said}\n"
    yield markdown_table(report, paper_rows)
    yield "\n" + "\n".join(f"- {note}" for note in report["notes"])


def _picture(scales: dict, stages: dict) -> Image.Image:
    made, true = stages["rows"][::2], stages["rows"][1::2]
    by_stage = [
        [Curve("FVD", [row["fvd"] for row in made])],
        [Curve("IS", [row["is"] for row in made]), Curve("IS of the true clips", [row["is"] for row in true])],
        [Curve("FFF_SSIM", [row["fff_ssim"]["mean"] for row in made])],
    ]
    by_frame = [Curve(row["label"].removeprefix("image "), row["curves"]["fff_ssim"]) for row in scales["rows"][:-1]]
    plots = [frame_plot(curves, across="stages before this one") for curves in by_stage]
    plots.append(frame_plot(by_frame, across="frame: SSIM to the picture"))
    return contact_sheet(torch.cat(plots), columns=2)


if __name__ == "__main__":
    typer.run(main)
