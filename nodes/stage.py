"""What VideoChain expands into beside the pack's and ComfyUI's own nodes.

People do not see these, but any client can call them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy_api.latest import io

from ..dreamvideo_core.common.checks import InputError, check_number
from ..dreamvideo_core.common.files import folder_below
from ..dreamvideo_core.common.json_files import parse_object
from ..dreamvideo_core.media.colour import match_colours
from ..dreamvideo_core.media.images import contact_sheet
from ..dreamvideo_core.models.text_encoder import TEXT_TOKENS, count_tokens
from ..dreamvideo_core.sampling.chain import MAX_STAGES, check_goes_on, join
from ..dreamvideo_core.sampling.stage_store import StageStore
from .host.conditions import IMAGE_KEY
from .host.execution import ExecutionContext, get_executing_context, intermediate_device
from .host.files import output_folder, temporary_folder
from .host.identity import Unidentified, identify
from .host.inputs import as_declared
from .host.messages import SENT_AGAIN, remark, say
from .host.model import DreamVideoModel
from .images import from_comfy, to_comfy
from .loading import CATEGORY

# Chains that are not saved are still kept for the next run, below ComfyUI's folder for temporary files.
_TEMPORARY, _TEMPORARY_BYTES = "dreamvideo_chain", 2 * 2**30
_SAMPLING_CHARACTERS, _SENTENCE_CHARACTERS = 2000, 1000  # of what a manifest says for a person


def saved_stages(folder: str) -> StageStore:
    """The store in `folder` below ComfyUI's output folder; InputError for a name that leads elsewhere."""
    example = "a name or a path below ComfyUI's output folder, such as dreamvideo_chain/forest"
    return StageStore(folder_below(output_folder(), folder, "folder", example))


def temporary_stages() -> StageStore:
    return StageStore(temporary_folder() / _TEMPORARY, _TEMPORARY_BYTES)


def describe_stage(number: int, total: int, seed: int, sentence: str) -> str:
    tokens = count_tokens(sentence)
    pieces = f" ({tokens} tokens, encoded in pieces of {TEXT_TOKENS})" if tokens > TEXT_TOKENS else ""
    return f"stage {number} of {total}, seed {seed}: {sentence}{pieces}"


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
                io.Int.Input("number", min=1, max=MAX_STAGES),
                io.Int.Input("total", min=1, max=MAX_STAGES),
                io.String.Input("sentence"),
                io.Int.Input("seed", min=0, max=0xFFFFFFFFFFFFFFFF),
                io.String.Input("sampling"),
                io.Boolean.Input("anchor"),
                io.String.Input("folder"),
                io.String.Input("shown_on", optional=True),
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
        stage = _stage(**inputs)
        if frames is not None or stage.find():
            return []
        stage.announce()
        return ["frames"]

    @classmethod
    def execute(cls, frames=None, **inputs) -> io.NodeOutput:
        stage = _stage(**inputs)
        _asked.pop(get_executing_context(), None)
        done = stage.found() if frames is None else stage.made(frames)
        return io.NodeOutput(done, done[-1:], ui=remark(*stage.remarks) if stage.remarks else None)


# The stages of the running prompt that were asked for and have not run yet. What a stage is known by is taken once, before
# sampling, and frames that were found then are there when it runs, whatever happens to their file meanwhile.
_asked: dict[ExecutionContext | None, _Stage] = {}


def _stage(**inputs: Any) -> _Stage:
    inputs = as_declared(VideoChainStage, inputs)
    context = get_executing_context()
    if context is None:  # called by something else than ComfyUI's executor
        return _Stage(**inputs)
    for other in [other for other in _asked if other.prompt_id != context.prompt_id]:
        del _asked[other]  # of a prompt that was stopped
    if context not in _asked:
        _asked[context] = _Stage(**inputs)
    return _asked[context]


class _Stage:
    """What a stage is made of, and where it is kept. `remarks` is what a person should know of that."""

    def __init__(
        self,
        model,
        vae,
        positive,
        negative,
        latent,
        number,
        total,
        sentence,
        seed,
        sampling,
        anchor,
        folder,
        shown_on="",
    ):
        check_number("number", number, 1, MAX_STAGES)
        check_number("total", total, number, MAX_STAGES)
        if isinstance(model.model, DreamVideoModel):  # others are refused by the sampler
            check_goes_on(model.model.config.retention is not None, total)
        self.picture = next((options[IMAGE_KEY] for _, options in positive if IMAGE_KEY in options), None)
        self.number, self.total, self.sentence, self.seed = number, total, sentence, seed
        self.anchor, self.shown_on = anchor, shown_on
        self.remarks: list[str] = []
        self._store: StageStore | None = None
        self._frames: torch.Tensor | None = None
        self._identify(model, vae, positive, negative, latent, sampling)
        self._open_store(folder)

    def find(self) -> bool:
        """Whether the stage is kept; its frames are held until it runs."""
        with self._without_failing():
            if self._store is not None and self._frames is None:
                self._frames = self._store.find(self.number, self._key)
        return self._frames is not None

    def found(self) -> torch.Tensor:
        """The frames that were kept."""
        if not self.find():
            raise InputError(f"stage {self.number} was kept and is gone from its folder. Run the chain again.")
        return self._frames.to(intermediate_device())

    def made(self, frames: torch.Tensor) -> torch.Tensor:
        """The frames of the sampler behind this stage, anchored and kept."""
        done = self._anchored(frames)
        with self._without_failing():
            if self._store is not None:
                strip = contact_sheet(from_comfy(done, "frames"), columns=len(done))
                self._store.keep(self.number, self._key, done.cpu(), strip, self._record)
        return done

    def announce(self) -> None:
        say(self.shown_on, describe_stage(self.number, self.total, self.seed, self.sentence))

    def _identify(self, model, vae, positive, negative, latent, sampling: str) -> None:
        # Not the latent's values: picture and VAE determine them, but for rounding. That they are all zero tells apart the
        # stages of older versions, whose noise had no trace of the picture.
        latent_kind = tuple(latent["samples"].shape), bool(latent["samples"].any())
        self._key, self._foreign = None, None
        try:
            found = identify(model, vae, positive, negative, latent_kind, self.seed, sampling, self.anchor)
            self._key, self._foreign = found.key, found.foreign
            self._record = {
                "sentence": _shortened(self.sentence), "seed": self.seed, "sampling": _settings(sampling),
                "model": identify(model).key,
            }  # fmt: skip
        except Unidentified as reason:
            self._remark(f"stage {self.number} is not kept: {reason}")

    def _open_store(self, folder: str) -> None:
        """The saved store for what another run of ComfyUI can know again, else the temporary one."""
        saved = saved_stages(folder) if folder else None
        if self._key is None:
            return
        if saved is not None and self._foreign is None:
            self._store = saved
            return
        if saved is not None:
            self._remark(
                f"stage {self.number} is not saved, only kept until ComfyUI ends: it depends on {self._foreign}, of which "
                "another run of ComfyUI cannot tell whether it is the same"
            )
        with self._without_failing():
            self._store = temporary_stages()

    @contextmanager
    def _without_failing(self) -> Iterator[None]:
        """The temporary store is a convenience: where it fails, the chain goes on without."""
        try:
            yield
        except (InputError, OSError) as error:
            if self._store is not None and self._store.limit is None:
                raise
            self._store = None
            self._remark(f"stage {self.number} is not kept for the next run: {error}")

    def _remark(self, text: str) -> None:
        self.remarks.append(text)
        say(self.shown_on, text)

    def _anchored(self, frames: torch.Tensor) -> torch.Tensor:
        if not self.anchor or self.picture is None:
            return frames
        return to_comfy(match_colours(from_comfy(frames, "frames"), self.picture[:1]))


def _settings(sampling: str) -> dict[str, Any]:
    """`sampling` of a stage, for its manifest."""
    if len(sampling) > _SAMPLING_CHARACTERS:
        raise InputError(f"sampling has {len(sampling)} characters; allowed: a JSON object of up to {_SAMPLING_CHARACTERS}")
    return parse_object(sampling, "sampling")


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _SENTENCE_CHARACTERS else sentence[:_SENTENCE_CHARACTERS] + "..."


class VideoChainJoin(io.ComfyNode):
    """All stages as one clip. Of a list of chains, which go through their stages together, it makes a list of clips.

    Each output is one list, in which the clips of the chains before come first: ComfyUI hands on a list that an expanded node
    makes as several outputs.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamVideoChainJoin",
            category=CATEGORY,
            is_dev_only=True,
            is_input_list=True,
            inputs=[
                io.String.Input("seam"),
                *(io.Image.Input(f"stage{number}", optional=number > 1) for number in range(1, MAX_STAGES + 1)),
                io.AnyType.Input("frames_before", optional=True),
                io.AnyType.Input("hand_overs_before", optional=True),
            ],
            outputs=[io.AnyType.Output(display_name="frames"), io.AnyType.Output(display_name="hand_overs")],
        )

    @classmethod
    def execute(cls, seam: list[str], frames_before=((),), hand_overs_before=((),), **stages: list) -> io.NodeOutput:
        numbered = [stages[name] for name in sorted(stages, key=lambda name: int(name.removeprefix("stage")))]
        if len(set(map(len, numbered))) > 1:
            lengths = ", ".join(str(len(clips)) for clips in numbered)
            raise InputError(f"the stages are lists of {lengths} clips; give as many of each")
        chains = list(zip(*numbered, strict=True))
        frames = [join(clips, seam[0]) for clips in chains]
        hand_overs = [torch.cat([clip[-1:] for clip in clips]) for clips in chains]
        return io.NodeOutput([*frames_before[0], *frames], [*hand_overs_before[0], *hand_overs])


class VideoChainPick(io.ComfyNode):
    """Of a list that an input of Video Chain was given, the item of one chain; the last serves all further chains."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamVideoChainPick",
            category=CATEGORY,
            is_dev_only=True,
            is_input_list=True,
            inputs=[
                io.AnyType.Input("values"),
                io.String.Input("name"),
                io.Int.Input("number", min=1),
                io.Int.Input("total", min=1),
            ],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, values: list, name: list[str], number: list[int], total: list[int]) -> io.NodeOutput:
        if len(values) > total[0]:
            raise ValueError(
                f"{name[0]} is a list of {len(values)}, but other inputs of Video Chain are lists of {total[0]} at most; give "
                "as many of each, or one for all"
            )
        return io.NodeOutput(values[min(number[0], len(values)) - 1])
