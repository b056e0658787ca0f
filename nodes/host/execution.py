"""What nodes use of ComfyUI's executor: the context of the running node, graphs to expand into, the device of results."""

from __future__ import annotations

from comfy.model_management import intermediate_device
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.utils import ExecutionContext, get_executing_context

__all__ = ["ExecutionContext", "GraphBuilder", "get_executing_context", "intermediate_device"]
