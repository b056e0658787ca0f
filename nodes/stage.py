"""The hidden nodes that VideoChain expands into: users do not see them, but any client can call them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy_api.latest import io

from ..dreamvideo_core.common.checks import MAX_SEED, InputError, check_number
from ..dreamvideo_core.common.files import folder_below
from ..dreamvideo_core.common.json_files import parse_object
from ..dreamvideo_core.media.colour import match_colours
from ..dreamvideo_core.media.images import contact_sheet
from ..dreamvideo_core.models.text_encoder import TEXT_TOKENS, count_tokens
from ..dreamvideo_core.sampling.chain import MAX_STAGES, check_can_chain, join_stages
from ..dreamvideo_core.sampling.stage_store import StageStore
from .host.conditions import IMAGE_KEY
from .host.execution import ExecutionContext, get_executing_context, intermediate_device
from .host.files import output_folder, temporary_folder
from .host.identity import Unidentified, identify
from .host.inputs import as_declared
from .host.messages import KEEPS_REMARKS, remark, say
from .host.model import DreamVideoModel
from .images import from_comfy, to_comfy
from .loading import CATEGORY

# Chains that are not saved are kept for the next run in a folder of ComfyUI's temporary files.
_TEMPORARY, _TEMPORARY_BYTES = "dreamvideo_chain", 2 * 2**30
_SAMPLING_CHARACTERS, _SENTENCE_CHARACTERS = 2000, 1000  # limits of what a manifest records


def saved_store(folder: str) -> StageStore:
    """The store in `folder` below ComfyUI's output folder. Raises `InputError` for a name that leads elsewhere."""
    example = "a name or a path below ComfyUI's output folder, such as dreamvideo_chain/forest"
    return StageStore(folder_below(output_folder(), folder, "folder", example))


def temporary_store() -> StageStore:
    return StageStore(temporary_folder() / _TEMPORARY, _TEMPORARY_BYTES)


def describe_stage(number: int, total: int, seed: int, sentence: str) -> str:
    """A line about a stage, with its number of tokens if these are too many for one encoding."""
    tokens = count_tokens(sentence)
    pieces = f" ({tokens} tokens, encoded in pieces of {TEXT_TOKENS})" if tokens > TEXT_TOKENS else ""
    return f"stage {number} of {total}, seed {seed}: {sentence}{pieces}"


class VideoChainStage(io.ComfyNode):
    """One stage: its frames from the store, or else from the sampler before it."""

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
                io.Int.Input("seed", min=0, max=MAX_SEED),
                io.String.Input("sampling"),
                io.Boolean.Input("anchor"),
                io.String.Input("folder"),
                io.String.Input("shown_on", optional=True),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Image.Output(display_name="last"),
            ],
            **KEEPS_REMARKS,
        )

    @classmethod
    def check_lazy_status(cls, frames=None, **inputs) -> list[str]:
        """Asks for sampling only if the stage is not in the store."""
        stage = _stored_stage(**inputs)
        if frames is not None or stage.find():
            return []
        stage.announce()
        return ["frames"]

    @classmethod
    def execute(cls, frames=None, **inputs) -> io.NodeOutput:
        stage = _stored_stage(**inputs)
        _pending.pop(get_executing_context(), None)
        frames = stage.load() if frames is None else stage.keep(frames)
        return io.NodeOutput(frames, frames[-1:], ui=remark(*stage.remarks) if stage.remarks else None)


# Stages of the running prompt between `check_lazy_status` and `execute`. So a stage's key is computed once, before sampling,
# and frames that were found are held even if their file disappears meanwhile.
_pending: dict[ExecutionContext | None, _StoredStage] = {}


def _stored_stage(**inputs: Any) -> _StoredStage:
    inputs = as_declared(VideoChainStage, inputs)
    context = get_executing_context()
    if context is None:  # the caller is not ComfyUI's executor
        return _StoredStage(**inputs)
    for other in [other for other in _pending if other.prompt_id != context.prompt_id]:
        del _pending[other]  # of a prompt that was stopped
    if context not in _pending:
        _pending[context] = _StoredStage(**inputs)
    return _pending[context]


class _StoredStage:
    """A stage with its key and its store. `remarks` tells the user if it is not stored as asked."""

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
        if isinstance(model.model, DreamVideoModel):  # the sampler refuses other models
            check_can_chain(model.model.config.takes_image, total)
        self.picture = next((options[IMAGE_KEY] for _, options in positive if IMAGE_KEY in options), None)
        self.number, self.total, self.sentence, self.seed = number, total, sentence, seed
        self.anchor, self.shown_on = anchor, shown_on
        self.remarks: list[str] = []
        self._store: StageStore | None = None
        self._frames: torch.Tensor | None = None
        self._identify(model, vae, positive, negative, latent, sampling)
        self._open_store(folder)

    def find(self) -> bool:
        """Whether the stage is in the store; its frames are held from then on."""
        with self._optional_store():
            if self._store is not None and self._frames is None:
                self._frames = self._store.find(self.number, self._key)
        return self._frames is not None

    def load(self) -> torch.Tensor:
        """The stored frames. Raises `InputError` if there are none."""
        if not self.find():
            raise InputError(f"stage {self.number} was kept and is gone from its folder. Run the chain again.")
        return self._frames.to(intermediate_device())

    def keep(self, frames: torch.Tensor) -> torch.Tensor:
        """Store the sampler's frames, with anchored colours if asked; returns them."""
        frames = self._anchored(frames)
        if self._store is not None:
            strip = contact_sheet(from_comfy(frames, "frames"), columns=len(frames))
            with self._optional_store():
                self._store.keep(self.number, self._key, frames.cpu(), strip, self._record)
        return frames

    def announce(self) -> None:
        """Say on the user's node that this stage begins."""
        say(self.shown_on, describe_stage(self.number, self.total, self.seed, self.sentence))

    def _identify(self, model, vae, positive, negative, latent, sampling: str) -> None:
        # Picture and VAE determine the latent's values up to rounding, so only its shape counts, and whether it is zero. It is
        # zero in stages of older versions, which had no trace of the picture.
        latent_kind = tuple(latent["samples"].shape), bool(latent["samples"].any())
        self._key, self._foreign = None, None
        try:
            identity = identify(model, vae, positive, negative, latent_kind, self.seed, sampling, self.anchor)
            self._key, self._foreign = identity.key, identity.foreign
            self._record = {
                "sentence": _shortened(self.sentence), "seed": self.seed, "sampling": _parse_sampling(sampling),
                "model": identify(model).key,
            }  # fmt: skip
        except Unidentified as reason:
            self._remark(f"stage {self.number} is not kept: {reason}")

    def _open_store(self, folder: str) -> None:
        """The saved store for a key that holds in any process, else the temporary one."""
        saved = saved_store(folder) if folder else None
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
        with self._optional_store():
            self._store = temporary_store()

    @contextmanager
    def _optional_store(self) -> Iterator[None]:
        """If the temporary store fails, the chain goes on without it; errors of a saved store are raised."""
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


def _parse_sampling(sampling: str) -> dict[str, Any]:
    """The JSON object `sampling`, for the manifest."""
    if len(sampling) > _SAMPLING_CHARACTERS:
        raise InputError(f"sampling has {len(sampling)} characters; allowed: a JSON object of up to {_SAMPLING_CHARACTERS}")
    return parse_object(sampling, "sampling")


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _SENTENCE_CHARACTERS else sentence[:_SENTENCE_CHARACTERS] + "..."


class VideoChainJoin(io.ComfyNode):
    """All stages of a chain as one clip, or of a list of chains as a list of clips.

    Each output is one list, to which the lists of earlier chains are prepended: ComfyUI splits a list output of an expanded
    node into several values.
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
        frames = [join_stages(clips, seam[0]) for clips in chains]
        hand_overs = [torch.cat([clip[-1:] for clip in clips]) for clips in chains]
        return io.NodeOutput([*frames_before[0], *frames], [*hand_overs_before[0], *hand_overs])


class VideoChainPick(io.ComfyNode):
    """One chain's item of a list that Video Chain was given; the last item serves all further chains."""

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
            raise InputError(
                f"{name[0]} is a list of {len(values)}, but other inputs of Video Chain are lists of {total[0]} at most; give "
                "as many of each, or one for all"
            )
        return io.NodeOutput(values[min(number[0], len(values)) - 1])
