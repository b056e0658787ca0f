"""DualCFGSampler, and DreamVideoGuider for SamplerCustomAdvanced."""

from __future__ import annotations

from comfy_api.latest import io

from ..dreamvideo_core.common.checks import MAX_SEED, check_number
from ..dreamvideo_core.models.config import SPRITES
from ..dreamvideo_core.sampling.guidance import ORDERS, Guidance
from .host.guider import Guider
from .host.messages import remark
from .host.sampling import sample, sampler_names, sampling_sigmas, scheduler_names, with_channels
from .loading import CATEGORY

MAX_SCALE, MAX_STEPS = 100.0, 1000
DEFAULTS = SPRITES.sampling  # the shipped model's


def guidance_inputs() -> list[io.Input]:
    """Text scale, image scale, order, rescale, guidance interval and retention_every."""
    return [
        io.Float.Input(
            "text_scale", default=DEFAULTS.text_scale, min=0.0, max=MAX_SCALE, step=0.05, round=0.01,
            tooltip="How strongly the sentence steers the motion (s_t in the paper). 1 is no guidance; higher follows the "
            "text more and looks harsher.",
        ),
        io.Float.Input(
            "image_scale", default=DEFAULTS.image_scale, min=0.0, max=MAX_SCALE, step=0.05, round=0.01,
            tooltip="How strongly the clip holds on to the picture (s_i in the paper). High values raise brightness and "
            "contrast. Equal scales cost two evaluations a step in place of three.",
        ),
        io.Combo.Input(
            "order", options=list(ORDERS), default=ORDERS[0],
            tooltip="text_first is the paper's Eq. 5: the image term is measured with the text already there. image_first "
            "is the other way round: try it when the motion should win over the picture.",
        ),
        io.Float.Input(
            "rescale", default=0.0, min=0.0, max=1.0, step=0.05, advanced=True,
            tooltip="Takes back the contrast that high scales add. 0 is off; 0.7 is a usual value. At image scales above 2 "
            "set guidance_end to 0.4 as well (docs/brightness.md).",
        ),
        io.Float.Input(
            "guidance_start", optional=True, default=0.0, min=0.0, max=1.0, step=0.01, advanced=True,
            tooltip="The share of the noise schedule after which guidance begins; before it a step costs one evaluation.",
        ),
        io.Float.Input(
            "guidance_end", optional=True, default=1.0, min=0.0, max=1.0, step=0.01, advanced=True,
            tooltip="The share of the noise schedule after which guidance ends; from there a step costs one evaluation. With "
            "the shipped model 0.4 saves a fifth of the evaluations; docs/savings.md has what that costs.",
        ),
        io.Int.Input(
            "retention_every", optional=True, default=1, min=1, max=100, advanced=True,
            tooltip="Run the image branch in every so many steps only, and use its result again in between. 1 is exact; "
            "larger numbers keep the first frame less well (docs/savings.md).",
        ),
    ]  # fmt: skip


def sampling_inputs() -> list[io.Input]:
    """Seed, steps, sampler and scheduler."""
    return [
        io.Int.Input(
            "seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
            tooltip="The noise to start from: the same seed and inputs give the same clip.",
        ),
        io.Int.Input(
            "steps", default=DEFAULTS.steps, min=1, max=MAX_STEPS,
            tooltip=f"Sampling steps. The shipped model needs no more than {DEFAULTS.steps}; full-size models take 25 to 50.",
        ),
        io.Combo.Input(
            "sampler", options=sampler_names(), default="ddim",
            tooltip="The sampling method. ddim is the paper's.",
        ),
        io.Combo.Input(
            "scheduler", options=scheduler_names(), default="simple",
            tooltip="How noise levels are spaced. simple spaces timesteps evenly, as DDIM does.",
        ),
    ]  # fmt: skip


def _model_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="From Load DreamVideo, with or without LoRAs and guidance patches."),
        io.Conditioning.Input("positive", tooltip="From Retention Encode, or plain text for text to video."),
        io.Conditioning.Input("negative", tooltip="From Retention Encode, or plain text for text to video."),
    ]


def make_guider(model, positive, negative, guidance: Guidance, retention_every: int) -> Guider:
    """A GUIDER for the conditionings of RetentionEncode, or for plain text."""
    check_number("retention_every", retention_every, 1)
    guider = Guider(model)
    guider.set_guidance(guidance, retention_every)
    guider.set_conds(positive, negative)
    return guider


class DreamVideoGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamVideoGuider",
            display_name="DreamVideo Guider",
            category=CATEGORY,
            description="Dual-condition guidance for SamplerCustomAdvanced.",
            search_aliases=["dual cfg", "image guidance", "text and image guider"],
            inputs=[*_model_inputs(), *guidance_inputs()],
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model, positive, negative, text_scale, image_scale, order, rescale=0.0, guidance_start=0.0, guidance_end=1.0,
        retention_every=1,
    ) -> io.NodeOutput:  # fmt: skip
        guidance = Guidance(text_scale, image_scale, order, rescale, start=guidance_start, end=guidance_end)
        return io.NodeOutput(make_guider(model, positive, negative, guidance, retention_every))


class DualCFGSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        text_scale, image_scale, order, *further = guidance_inputs()
        seed, steps, sampler, scheduler = sampling_inputs()
        return io.Schema(
            node_id="DualCFGSampler",
            display_name="Dual CFG Sampler",
            category=CATEGORY,
            description="Makes the clip: denoises the latent under guidance by the text and by the picture, each with a "
            "scale of its own.",
            search_aliases=["dreamvideo sampler", "video ksampler", "image to video sampler", "dual cfg"],
            inputs=[
                *_model_inputs(),
                io.Latent.Input("latent", tooltip="From Retention Encode, or a clip's latent to work on with denoise below 1."),
                seed,
                steps,
                text_scale,
                image_scale,
                order,
                sampler,
                scheduler,
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="1 makes the clip from noise; less keeps more of the latent that comes in.",
                ),
                *further,
            ],
            outputs=[io.Latent.Output(tooltip="The clip as latents, frame by frame: decode it with VAE Decode.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, positive, negative, latent, seed, steps, text_scale, image_scale, order, sampler, scheduler, denoise,
        rescale=0.0, guidance_start=0.0, guidance_end=1.0, retention_every=1,
    ) -> io.NodeOutput:  # fmt: skip
        check_number("steps", steps, 1, MAX_STEPS)
        sigmas = sampling_sigmas(model, sampler, scheduler, steps, denoise)
        latent = with_channels(model, latent)
        if not len(sigmas):
            return io.NodeOutput(latent)
        guidance = Guidance(text_scale, image_scale, order, rescale, start=guidance_start, end=guidance_end)
        guider = make_guider(model, positive, negative, guidance, retention_every)
        made = sample(guider, latent, sampler, sigmas, seed)
        return io.NodeOutput(made, ui=remark(*guider.remarks, *guider.idle) if guider.remarks or guider.idle else None)
