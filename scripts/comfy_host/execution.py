"""The record of a prompt that a server ran."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Event:
    """A message of the server: its time of arrival (`time.monotonic`), type and data."""

    time: float
    kind: str
    data: dict

    @property
    def node(self) -> str | None:
        """The node that begins now, if one does; nodes of an expansion have ids like `3.0.0.stage0`."""
        return self.data.get("node") if self.kind == "executing" else None

    @property
    def display_node(self) -> str | None:
        """The node of the graph that `node` belongs to."""
        return self.data.get("display_node") or self.node

    @property
    def ends_prompt(self) -> bool:
        return self.kind == "executing" and self.data.get("node") is None


@dataclass(frozen=True)
class Execution:
    """A finished prompt."""

    prompt_id: str
    events: list[Event] = field(repr=False)
    history: dict = field(repr=False)

    @property
    def outputs(self) -> dict[str, dict]:
        """The reports of output nodes by id: `{"3": {"images": [...], ...}}`."""
        return self.history["outputs"]

    @property
    def executed(self) -> list[str]:
        """The ids of the nodes that ran, in order, with those of expansions."""
        return list(dict.fromkeys(event.node for event in self.events if event.node))

    @property
    def cached(self) -> list[str]:
        """The ids of the nodes whose results the server had cached."""
        return [node for event in self.events if event.kind == "execution_cached" for node in event.data["nodes"]]

    def seconds(self, nodes: Collection[str]) -> float:
        """The time spent in these nodes of the graph, with their expansions."""
        return sum(length for node, length in self._spans() if node in nodes)

    def saved(self) -> Iterator[dict]:
        """The files that nodes saved to the output folder: `{"filename": ..., "subfolder": ..., "type": "output"}`."""
        for report in self.outputs.values():
            for items in report.values():
                if isinstance(items, list):
                    yield from (item for item in items if isinstance(item, dict) and item.get("type") == "output")

    def _spans(self) -> Iterator[tuple[str, float]]:
        """The seconds from each node's begin to the next one's, or to the prompt's end."""
        begins = [event for event in self.events if event.kind == "executing"]
        for event, following in pairwise(begins):
            if event.node:
                yield event.display_node, following.time - event.time
