"""Workflow files: reading them, overriding widgets, and converting them to the server's API format (by comfy-cli)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api, is_api_format

from .errors import WorkflowInvalid


@dataclass(frozen=True)
class Override:
    """A value for an input of a node."""

    node_id: str
    input: str
    value: Any


def load(path: Path) -> dict:
    """Read a workflow file; raises `WorkflowInvalid`."""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise WorkflowInvalid(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WorkflowInvalid(f"{path} is not JSON: {error}") from None
    if not isinstance(workflow, dict):
        raise WorkflowInvalid(f"{path} is not a workflow: it holds a {type(workflow).__name__}, not an object")
    return workflow


def to_prompt(workflow: dict, object_info: dict[str, dict]) -> dict[str, dict]:
    """Convert a saved workflow to an API-format prompt; `object_info` has the schemas of the server's nodes."""
    try:
        prompt = convert_ui_to_api(workflow, object_info)
    except WorkflowConversionError as error:
        raise WorkflowInvalid(f"the workflow cannot be converted: {error}") from error
    if not prompt:
        raise WorkflowInvalid("the workflow holds no node that could run")
    return prompt


def metadata(workflow: dict) -> dict:
    """The `extra_data` by which savers write the workflow into their files, so that ComfyUI can open these."""
    return {} if is_api_format(workflow) else {"extra_pnginfo": {"workflow": workflow}}


def parse_override(text: str, prompt: dict[str, dict]) -> Override:
    """Parse `NODE TITLE.input=value`; a node's id may replace its title.

    The value is JSON, or else a string. An input that is true or false allows nothing else, because ComfyUI takes any
    string for true.
    """
    node_id, rest = _find_node(text, prompt)
    name, equals, value = rest.partition("=")
    if not equals:
        raise WorkflowInvalid(f'"{text}" sets nothing: write "NODE TITLE.input=value"')
    inputs = prompt[node_id]["inputs"]
    if name not in inputs:
        raise WorkflowInvalid(f'{_title(prompt, node_id)} has no input "{name}"; it has: {", ".join(sorted(inputs))}')
    if _is_link(inputs[name], prompt):
        source = _title(prompt, inputs[name][0])
        raise WorkflowInvalid(f'"{name}" of {_title(prompt, node_id)} is not a widget here: it comes from {source}')
    if isinstance(inputs[name], bool) and value.lower() not in ("true", "false"):
        raise WorkflowInvalid(f'{name} of {_title(prompt, node_id)} is "{value}"; allowed: true, false')
    return Override(node_id, name, _parse_value(value.lower() if isinstance(inputs[name], bool) else value))


def choices(spec: list) -> list:
    """A widget's choices by its entry in `object_info`: `["COMBO", {"options": [...]}]`, formerly `[[...], {...}]`."""
    kind = spec[0] if spec else None
    if kind == "COMBO":
        return spec[1].get("options", [])
    return kind if isinstance(kind, list) else []


def apply(prompt: dict[str, dict], overrides: list[Override]) -> dict[str, dict]:
    """A copy of `prompt` with the overrides applied."""
    result = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in prompt.items()}
    for override in overrides:
        result[override.node_id]["inputs"][override.input] = override.value
    return result


def _find_node(text: str, prompt: dict[str, dict]) -> tuple[str, str]:
    """The node whose title or id begins `text`, and the rest after the dot. Titles may hold dots, so the longest wins."""
    names = [(name, node_id) for node_id in prompt for name in {_title(prompt, node_id), node_id}]
    matches = [(name, node_id) for name, node_id in names if text.startswith(f"{name}.")]
    if not matches:
        titles = "\n".join(f"  {_title(prompt, node_id)}" for node_id in prompt)
        raise WorkflowInvalid(f'"{text}" begins with no node\'s title; the workflow has:\n{titles}')
    longest = max(len(name) for name, _ in matches)
    best = [(name, node_id) for name, node_id in matches if len(name) == longest]
    if len(best) > 1:
        ids = ", ".join(node_id for _, node_id in best)
        raise WorkflowInvalid(f'{len(best)} nodes are named "{best[0][0]}"; use an id in place of the title: {ids}')
    name, node_id = best[0]
    return node_id, text[len(name) + 1 :]


def _title(prompt: dict[str, dict], node_id: str) -> str:
    node = prompt[node_id]
    return node.get("_meta", {}).get("title") or node["class_type"]


def _is_link(value: Any, prompt: dict[str, dict]) -> bool:
    """Whether an input's value is a link to another node's output: `[node id, output]`."""
    return isinstance(value, list) and len(value) == 2 and value[0] in prompt


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
