"""VideoChain: a long clip from many sentences, one stage after the other."""

from __future__ import annotations

import json
from pathlib import PurePath

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..dreamvideo_core.chain import MAX_STAGES, SEAMS, Stage, plan
from .loading import CATEGORY
from .retention import MAX_FRAMES, check_size, size_inputs
from .sampling import guidance_inputs, sampling_inputs
from .stage import stage_store

ANCHORS = ("off", "first image")  # as workflows have it; every stage is held to its own picture, which comes from the first


class VideoChain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        width, height, fit = size_inputs()
        text_scale, image_scale, order, rescale, *later = guidance_inputs()
        seed, steps, sampler, scheduler = sampling_inputs()
        return io.Schema(
            node_id="VideoChain",
            display_name="Video Chain",
            category=CATEGORY,
            description="One long clip from many sentences: each stage goes on from the last frame of the one before.",
            search_aliases=["dreamvideo chain", "long video", "extend video", "last frame", "prompt schedule"],
            enable_expand=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", raw_link=True, tooltip="From Load DreamVideo, with or without LoRAs and patches."),
                io.Clip.Input("clip", raw_link=True, tooltip="Encodes the sentences."),
                io.Vae.Input(
                    "vae", raw_link=True,
                    tooltip="Turns each stage's latents into frames, and gives its noise the mean of its picture.",
                ),
                io.Image.Input(
                    "image", optional=True, raw_link=True,
                    tooltip="The first frame of all. Unconnected: the first stage is made from its sentence alone.",
                ),
                io.String.Input(
                    "prompts", multiline=True, default="the red circle moves right\nthe blue square grows",
                    tooltip=f"One stage a line, up to {MAX_STAGES}. Blank lines and lines that begin with # are left out. "
                    "Changing a line makes that stage and the later ones anew.",
                ),
                io.String.Input("negative", default="", tooltip="What guidance moves away from, in every stage."),
                width,
                height,
                fit,
                io.Int.Input(
                    "frames", default=8, min=2, max=MAX_FRAMES,
                    tooltip="Frames of each stage, the shared one among them. The model was trained on 8.",
                ),
                seed,
                io.String.Input(
                    "seeds", default="",
                    tooltip="Stage k takes seed + k - 1. Write seeds here to give stages others: \"- - 7\" makes the third "
                    "anew from seed 7.",
                ),
                steps,
                text_scale,
                image_scale,
                order,
                sampler,
                scheduler,
                rescale,
                io.Combo.Input(
                    "seam", options=list(SEAMS), default="merge",
                    tooltip="The frame that two stages share. merge: shown once, so motion flows on. keep: shown twice, "
                    "as in the paper.",
                ),
                io.Combo.Input(
                    "colour_anchor", options=list(ANCHORS), default="off",
                    tooltip="first image: take back at every stage what the colours of its first frame have drifted from its "
                    "picture. What changes within a stage stays.",
                ),
                io.Boolean.Input(
                    "save_stages", default=False,
                    tooltip="Write every finished stage into ComfyUI's output folder at once. The same chain goes on from "
                    "there after a crash or a restart.",
                ),
                io.String.Input(
                    "folder", default="dreamvideo_chain",
                    tooltip="The folder for saved stages, below ComfyUI's output folder.",
                ),
                *later,
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="All stages as one clip."),
                io.Image.Output(display_name="hand_overs", tooltip="The last frame of every stage."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, vae, prompts, negative, width, height, fit, frames, seed, seeds, steps, text_scale, image_scale,
        order, sampler, scheduler, rescale, seam, colour_anchor, save_stages, folder,
        guidance_start=0.0, guidance_end=1.0, retention_every=1, image=None,
    ) -> io.NodeOutput:  # fmt: skip
        check_size(width, height)
        stages = plan(prompts, seed, seeds)
        folder = check_folder(folder) if save_stages else ""
        stage_store(folder)  # a folder that cannot be used is said before anything is made
        sampling = {
            "steps": steps, "text_scale": text_scale, "image_scale": image_scale, "order": order, "sampler": sampler,
            "scheduler": scheduler, "denoise": 1.0, "rescale": rescale,
            "guidance_start": guidance_start, "guidance_end": guidance_end, "retention_every": retention_every,
        }  # fmt: skip
        size = {"width": width, "height": height, "frames": frames, "fit": fit}
        expansion = _Expansion(model, clip, vae, negative, size, sampling, colour_anchor != "off", folder, cls.hidden.unique_id)
        joined = expansion.chain(stages, image, seam)
        return io.NodeOutput(joined.out(0), joined.out(1), expand=expansion.graph.finalize())


def check_folder(folder: str) -> str:
    path = PurePath(folder.strip())
    if not folder.strip() or path.is_absolute() or path.drive or ".." in path.parts:
        raise ValueError(
            f"folder is {folder!r}; allowed: a name or a path below ComfyUI's output folder, such as dreamvideo_chain/forest"
        )
    return path.as_posix()


class _Expansion:
    """The graph of a chain: for every stage the nodes that a person would wire by hand, and one that keeps its frames."""

    def __init__(self, model, clip, vae, negative, size, sampling, anchor, folder, shown_on):
        self.graph = GraphBuilder()
        self.model, self.clip, self.vae = model, clip, vae
        self.size, self.sampling, self.anchor = size, sampling, anchor
        self.folder, self.shown_on = folder, shown_on
        self.negative = self.graph.node("CLIPTextEncode", id="negative", clip=clip, text=negative).out(0)

    def chain(self, stages: list[Stage], image: list | None, seam: str):
        clips = {}
        for stage in stages:
            kept = self._stage(stage, len(stages), image)
            clips[f"stage{stage.number}"], image = kept.out(0), kept.out(1)
        return self.graph.node("DreamVideoChainJoin", id="join", seam=seam, **clips)

    def _stage(self, stage: Stage, total: int, image: list | None):
        def node(kind: str, role: str, **inputs):
            given = {name: value for name, value in inputs.items() if value is not None}
            return self.graph.node(kind, id=f"stage{stage.number}.{role}", **given)

        text = node("CLIPTextEncode", "sentence", clip=self.clip, text=stage.sentence)
        retention = node(
            "RetentionEncode", "retention", positive=text.out(0), negative=self.negative, image=image, vae=self.vae,
            batch_size=1, strength=1.0, start=0.0, end=1.0, **self.size,
        )  # fmt: skip
        conditioned = dict(zip(("positive", "negative", "latent"), map(retention.out, range(3)), strict=True))
        sampler = node("DualCFGSampler", "sampler", model=self.model, seed=stage.seed, **conditioned, **self.sampling)
        decoded = node("VAEDecode", "decode", samples=sampler.out(0), vae=self.vae)
        return node(
            "DreamVideoChainStage", "keep", model=self.model, vae=self.vae, frames=decoded.out(0), number=stage.number,
            total=total, sentence=stage.sentence, seed=stage.seed, sampling=json.dumps(self.sampling), anchor=self.anchor,
            folder=self.folder, shown_on=self.shown_on, **conditioned,
        )  # fmt: skip
