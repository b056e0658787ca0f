"""What VideoChain expands into beside the pack's and ComfyUI's own nodes. People do not see these."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ..dreamvideo_core.chain import MAX_STAGES, join
from ..dreamvideo_core.colour import match_colours
from ..dreamvideo_core.images import contact_sheet
from ..dreamvideo_core.stages import StageStore
from ..dreamvideo_core.text import TEXT_TOKENS, count_tokens
from .host.conditions import IMAGE_KEY
from .host.identity import Unidentified, identify
from .host.messages import SENT_AGAIN, log, remark, say
from .host.model import check_branch
from .images import from_comfy, to_comfy
from .loading import CATEGORY

# Chains that are not saved are still kept for the next run, below ComfyUI's folder for temporary files.
_TEMPORARY, _TEMPORARY_BYTES = "dreamvideo_chain", 2 * 2**30


def stage_store(folder: str) -> StageStore:
    """The store of a chain: `folder` below ComfyUI's output folder, or without a name a temporary one."""
    if folder:
        return StageStore(Path(folder_paths.get_output_directory()) / folder)
    return StageStore(Path(folder_paths.get_temp_directory()) / _TEMPORARY, _TEMPORARY_BYTES)


class VideoChainStage(io.ComfyNode):
    """One stage: its frames from disk where they are kept already, else from the sampler behind it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamVideoChainStage",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[
                io.Model.Input("model"),
                io.Vae.Input("vae"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent"),
                io.Image.Input("frames", lazy=True),
                io.Int.Input("number"),
                io.Int.Input("total"),
                io.String.Input("sentence"),
                io.Int.Input("seed", max=0xFFFFFFFFFFFFFFFF),
                io.String.Input("sampling"),
                io.Boolean.Input("anchor"),
                io.String.Input("folder"),
                io.String.Input("shown_on"),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Image.Output(display_name="last"),
            ],
            **SENT_AGAIN,
        )

    @classmethod
    def check_lazy_status(cls, frames=None, **inputs) -> list[str]:
        """Sampling is asked for only where the stage is not kept."""
        stage = _Stage(**inputs)
        if frames is not None or stage.kept() is not None:
            return []
        stage.announce()
        return ["frames"]

    @classmethod
    def execute(cls, frames=None, **inputs) -> io.NodeOutput:
        stage = _Stage(**inputs)
        if frames is None:
            done = stage.kept()
        else:
            done = stage.anchored(frames)
            stage.keep(done)
        return io.NodeOutput(done, done[-1:], ui=remark(stage.words))


class _Stage:
    """What a stage is made of, and where it is kept."""

    def __init__(
        self, model, vae, positive, negative, latent, number, total, sentence, seed, sampling, anchor, folder, shown_on
    ):
        self.picture = positive[0][1].get(IMAGE_KEY)
        if number > 1:
            check_branch(model.model.config, self.picture)
        self.number, self.total, self.sentence, self.seed, self.sampling = number, total, sentence, seed, sampling
        self.anchor, self.shown_on, self.model = anchor, shown_on, model
        self.store = stage_store(folder)
        # Not the latent's values: picture and VAE determine them but for rounding. Whether there are any sets these stages
        # apart from those that were kept before noise had a trace of the picture.
        latent_kind = tuple(latent["samples"].shape), bool(latent["samples"].any())
        try:
            self.key = identify(model, vae, positive, negative, latent_kind, seed, sampling, anchor)
        except Unidentified as reason:
            self.key = None
            log.info("stage %d is not kept: %s", number, reason)

    def kept(self) -> torch.Tensor | None:
        frames = self.store.find(self.number, self.key) if self.key else None
        return None if frames is None else frames.to(comfy.model_management.intermediate_device())

    @property
    def words(self) -> str:
        tokens = count_tokens(self.sentence)
        pieces = f" ({tokens} tokens, encoded in pieces of {TEXT_TOKENS})" if tokens > TEXT_TOKENS else ""
        return f"stage {self.number} of {self.total}, seed {self.seed}: {self.sentence}{pieces}"

    def announce(self) -> None:
        say(self.shown_on, self.words)

    def anchored(self, frames: torch.Tensor) -> torch.Tensor:
        if not self.anchor or self.picture is None:
            return frames
        return to_comfy(match_colours(from_comfy(frames, "frames"), self.picture[:1]))

    def keep(self, frames: torch.Tensor) -> None:
        if not self.key:
            return
        sampling = json.loads(self.sampling)
        record = {"sentence": self.sentence, "seed": self.seed, "sampling": sampling, "model": identify(self.model)}
        strip = contact_sheet(from_comfy(frames, "frames"), columns=len(frames))
        self.store.keep(self.number, self.key, frames.cpu(), strip, record)


class VideoChainJoin(io.ComfyNode):
    """All stages as one clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamVideoChainJoin",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[
                io.String.Input("seam"),
                *(io.Image.Input(f"stage{number}", optional=number > 1) for number in range(1, MAX_STAGES + 1)),
            ],
            outputs=[io.Image.Output(display_name="frames"), io.Image.Output(display_name="hand_overs")],
        )

    @classmethod
    def execute(cls, seam: str, **stages: torch.Tensor) -> io.NodeOutput:
        clips = [stages[f"stage{number}"] for number in range(1, len(stages) + 1)]
        return io.NodeOutput(join(clips, seam), torch.cat([clip[-1:] for clip in clips]))
