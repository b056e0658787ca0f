"""VideoChain: a long clip from many sentences, one stage after the other."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..dreamvideo_core.common.checks import InputError, check_size, check_text
from ..dreamvideo_core.sampling.chain import MAX_STAGES, SEAMS, Stage, plan_stages
from .host.execution import GraphBuilder
from .host.inputs import as_declared
from .host.messages import KEEPS_REMARKS, own_id, remark
from .loading import CATEGORY
from .retention import MAX_FRAMES, MAX_SIZE, size_inputs
from .sampling import guidance_inputs, sampling_inputs
from .stage import describe_stage, saved_store

ANCHORS = ("off", "first image")  # named so in saved workflows; each stage is matched to its own image


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
            is_input_list=True,  # so that all chains of a list are planned before the first one begins
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
                io.ClipVision.Input(
                    "clip_vision", optional=True, raw_link=True,
                    tooltip="For models that see the picture by CLIP (DynamiCrafter). The last frame of a stage is then "
                    "encoded again for the next. Leave it unconnected for other models.",
                ),
                io.Int.Input(
                    "fps", optional=True, default=0, min=0, max=1000,
                    tooltip="The frame rate that DynamiCrafter is told; 0 is the model's own (Retention Encode).",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="All stages as one clip.", is_output_list=True),
                io.Image.Output(display_name="hand_overs", tooltip="The last frame of every stage.", is_output_list=True),
            ],
            **KEEPS_REMARKS,
        )  # fmt: skip

    @classmethod
    def execute(cls, **given: list) -> io.NodeOutput:
        """One chain, or as many as the longest list among the inputs; a shorter list's last value serves the other chains."""
        links = {name: given.pop(name)[0] for name in _LINKED if name in given}
        for name, values in given.items():
            if not values:
                raise InputError(f"{name} is an empty list; give one value at least")
        total = max(map(len, given.values()))
        chains = [
            _Chain(**as_declared(cls, {name: values[min(number, len(values)) - 1] for name, values in given.items()}))
            for number in range(1, total + 1)
        ]
        graph, joined = {}, None
        for number, chain in enumerate(chains, 1):
            expansion = _Expansion(chain, own_id(cls))
            chosen = links if total == 1 else expansion.add_picks(links, number, total)
            joined = expansion.add_chain(joined, **chosen)
            graph |= expansion.graph.finalize()
        lines = [line for chain in chains for line in chain.describe()]
        return io.NodeOutput(joined.out(0), joined.out(1), expand=graph, ui=remark(*lines))


# Inputs that the node gets as links, not as values. Their lists pass through the nodes of a chain item by item.
_LINKED = ("model", "clip", "vae", "image", "clip_vision")


class _Chain:
    """The settings of one chain, checked before anything is generated."""

    def __init__(
        self, prompts, negative, width, height, fit, frames, seed, seeds, steps, text_scale, image_scale, order, sampler,
        scheduler, rescale, seam, colour_anchor, save_stages, folder,
        guidance_start=0.0, guidance_end=1.0, retention_every=1, fps=0,
    ):  # fmt: skip
        check_size("width", width, MAX_SIZE)
        check_size("height", height, MAX_SIZE)
        check_text("negative", negative)
        self.stages = plan_stages(prompts, seed, seeds)
        self.folder = folder if save_stages else ""
        if save_stages:
            saved_store(folder)  # raises now for a folder that cannot be used
        self.sampling = {
            "steps": steps, "text_scale": text_scale, "image_scale": image_scale, "order": order, "sampler": sampler,
            "scheduler": scheduler, "denoise": 1.0, "rescale": rescale,
            "guidance_start": guidance_start, "guidance_end": guidance_end, "retention_every": retention_every,
        }  # fmt: skip
        self.retention = {"width": width, "height": height, "frames": frames, "fit": fit, **({"fps": fps} if fps else {})}
        self.negative, self.seam, self.anchor = negative, seam, colour_anchor != "off"

    def describe(self) -> list[str]:
        """A line for each stage."""
        total = len(self.stages)
        return [describe_stage(stage.number, total, stage.seed, stage.sentence) for stage in self.stages]


class _Expansion:
    """The graph of a chain: the nodes that a user would connect for every stage, and one that keeps its frames.

    Progress is shown on the node with the id `shown_on`.
    """

    def __init__(self, chain: _Chain, shown_on: str):
        self.graph = GraphBuilder()
        self.chain, self.shown_on = chain, shown_on

    def add_picks(self, links: dict[str, list], number: int, total: int) -> dict[str, Any]:
        """Add a node for each link that picks the list item of chain `number`; returns their outputs."""
        return {
            name: self.graph.node(
                "DreamVideoChainPick", id=f"pick.{name}", values=link, name=name, number=number, total=total
            ).out(0)
            for name, link in links.items()
        }

    def add_chain(
        self, before: Any, model: list, clip: list, vae: list, image: list | None = None, clip_vision: list | None = None
    ):
        """Add all stages and the node that joins them; it appends their clip to those of `before`, an earlier such node."""
        self.model, self.clip, self.vae, self.clip_vision = model, clip, vae, clip_vision
        self.negative = self.graph.node("CLIPTextEncode", id="negative", clip=clip, text=self.chain.negative).out(0)
        clips = {}
        for stage in self.chain.stages:
            kept = self._add_stage(stage, image)
            clips[f"stage{stage.number}"], image = kept.out(0), kept.out(1)
        earlier = {"frames_before": before.out(0), "hand_overs_before": before.out(1)} if before else {}
        return self.graph.node("DreamVideoChainJoin", id="join", seam=self.chain.seam, **clips, **earlier)

    def _add_stage(self, stage: Stage, image: list | None):
        """Add a stage's nodes; returns the one that keeps its frames."""

        def node(class_type: str, role: str, **inputs):
            given = {name: value for name, value in inputs.items() if value is not None}
            return self.graph.node(class_type, id=f"stage{stage.number}.{role}", **given)

        sampling = self.chain.sampling
        text = node("CLIPTextEncode", "sentence", clip=self.clip, text=stage.sentence)
        retention = node(
            "RetentionEncode", "retention", positive=text.out(0), negative=self.negative, image=image, vae=self.vae,
            clip_vision=self.clip_vision, batch_size=1, strength=1.0, start=0.0, end=1.0, **self.chain.retention,
        )  # fmt: skip
        conditioned = dict(zip(("positive", "negative", "latent"), map(retention.out, range(3)), strict=True))
        sampler = node("DualCFGSampler", "sampler", model=self.model, seed=stage.seed, **conditioned, **sampling)
        decoded = node("VAEDecode", "decode", samples=sampler.out(0), vae=self.vae)
        return node(
            "DreamVideoChainStage", "keep", model=self.model, vae=self.vae, frames=decoded.out(0), number=stage.number,
            total=len(self.chain.stages), sentence=stage.sentence, seed=stage.seed, sampling=json.dumps(sampling),
            anchor=self.chain.anchor, folder=self.chain.folder, shown_on=self.shown_on, **conditioned,
        )  # fmt: skip
