"""Running a workflow file in a server of its own."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from . import frontends, outputs, workflow
from .base import BaseDirectory
from .console import say
from .errors import WorkflowInvalid
from .execution import Execution
from .paths import BASE, OUTPUT
from .progress import Progress
from .server import Server

SAMPLERS = {"DualCFGSampler", "VideoChain", "KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"}
UPLOADS = ("image_upload", "video_upload", "audio_upload")


@dataclass(frozen=True)
class Report:
    """The results of a run; `clip` and `contact_sheet` are None if the workflow saves no clip, or nothing."""

    clip: str | None
    contact_sheet: str | None
    sampling_seconds: float
    outputs: list[str]

    def text(self) -> str:
        """The report for a person, with JSON for programs in the last line."""
        return "\n".join(
            [
                f"clip           {self.clip or 'none'}",
                f"contact sheet  {self.contact_sheet or 'none'}",
                *(f"also saved     {file}" for file in self.outputs if file != self.clip),
                f"sampling       {self.sampling_seconds:.2f} s",
                json.dumps(asdict(self)),
            ]
        )


def run(comfyui: Path, file: Path, settings: list[str], output: Path | None = None, frontend: str | None = None) -> Report:
    """Run the workflow in `file` with overrides such as `Sampler.seed=1`; it saves to the folder `output`."""
    graph = workflow.load(file)
    folder = (output or OUTPUT / file.stem).resolve()
    with start(comfyui, folder, frontend=frontend) as server:
        schemas = server.client.object_info()
        prompt = workflow.to_prompt(graph, schemas)
        overrides = [workflow.parse_override(text, prompt) for text in settings]
        prompt = workflow.apply(prompt, [_usable(item, prompt, schemas, server.base) for item in overrides])
        say(f"running {file.name}")
        execution = _follow(server, prompt, workflow.metadata(graph))
    return _report(execution, prompt, folder)


def start(comfyui: Path, output: Path | None = None, port: int | None = None, frontend: str | None = None) -> Server:
    """A server on the repository's base directory, to be used as a context manager; `frontend` is a version."""
    page = frontends.fetch(frontend) if frontend else None
    server = Server(comfyui, BaseDirectory(BASE).prepare(), output, port=port, page=page)
    say(f"starting ComfyUI at {server.url}, log in {server.log_path} (kept only if something fails)")
    return server


def _follow(server: Server, prompt: dict[str, dict], extra_data: dict) -> Execution:
    progress = Progress(prompt)
    try:
        return server.client.run(prompt, extra_data, progress)
    finally:
        progress.close()


def _usable(
    override: workflow.Override, prompt: dict[str, dict], schemas: dict[str, dict], base: BaseDirectory
) -> workflow.Override:
    """The override, if its value is among the widget's choices. A file is first copied to the input folder if it must be."""
    inputs = schemas.get(prompt[override.node_id]["class_type"], {}).get("input", {})
    spec = {**inputs.get("required", {}), **inputs.get("optional", {})}.get(override.input, [])
    if len(spec) > 1 and any(spec[1].get(name) for name in UPLOADS):
        return _with_upload(override, base)
    choices = workflow.choices(spec)
    if choices and override.value not in choices:
        raise WorkflowInvalid(f'{override.input} is "{override.value}"; allowed: {", ".join(map(str, choices))}')
    return override


def _with_upload(override: workflow.Override, base: BaseDirectory) -> workflow.Override:
    if base.has_input(override.value):
        return override
    file = Path(override.value).expanduser()
    if not file.is_file():
        raise WorkflowInvalid(f"{override.value} is neither a file nor one of the example pictures")
    return workflow.Override(override.node_id, override.input, base.add_input(file))


def _report(execution: Execution, prompt: dict[str, dict], folder: Path) -> Report:
    files = [folder / item["subfolder"] / item["filename"] for item in execution.saved()]
    clip = outputs.find_clip(files)
    sheet = outputs.write_contact_sheet(files, folder)
    samplers = {node_id for node_id, node in prompt.items() if node["class_type"] in SAMPLERS}
    return Report(
        clip=str(clip) if clip else None,
        contact_sheet=str(sheet) if sheet else None,
        sampling_seconds=round(execution.seconds(samplers), 2),
        outputs=[str(file) for file in files],
    )
