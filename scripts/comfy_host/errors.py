"""Errors whose texts can be shown to the user as they are."""


class HostError(Exception):
    """An error that ends a command with a message, not with a traceback."""

    keeps_log = True  # whether the log of a running server is kept


class SetupFailed(HostError):
    """The environment or ComfyUI could not be made."""


class ServerFailed(HostError):
    """The server did not start, or ended."""


class PackNotLoaded(ServerFailed):
    """The server runs, but without this pack's nodes."""


class PortUnusable(HostError):
    """A server cannot listen on its port."""


class WorkflowInvalid(HostError):
    """A workflow file, or an override of one of its inputs, is not valid."""

    keeps_log = False


class PromptRejected(HostError):
    """The server refused a prompt before running it; `node_errors` has its errors by node id."""

    keeps_log = False

    def __init__(self, answer: dict, titles: dict[str, str]):
        self.error = answer.get("error") or {}
        self.node_errors = answer.get("node_errors") or {}
        super().__init__("\n".join(self._lines(titles)))

    def _lines(self, titles: dict[str, str]) -> list[str]:
        lines = ["the server rejected the workflow: " + (_sentence(self.error) or "a part of it is not valid")]
        for node_id, node in self.node_errors.items():
            name = _node_name(node_id, node.get("class_type"), titles.get(node_id))
            lines += [f"  {name}: {_sentence(error)}" for error in node.get("errors", [])]
        return lines


class ExecutionFailed(HostError):
    """A node raised an exception while the server ran a prompt."""

    def __init__(self, data: dict, titles: dict[str, str]):
        self.node_id = data.get("node_id")
        self.node_type = data.get("node_type")
        self.exception_type = data.get("exception_type", "")
        self.exception_message = data.get("exception_message", "").strip()
        self.traceback = "".join(data.get("traceback", []))
        name = _node_name(self.node_id, self.node_type, titles.get(self.node_id))
        super().__init__(f"{name} raised {self.exception_type}: {self.exception_message}")


class ExecutionInterrupted(HostError):
    """Somebody stopped the prompt while it ran."""

    def __init__(self, data: dict, titles: dict[str, str]):
        self.node_id = data.get("node_id")
        self.node_type = data.get("node_type")
        super().__init__(f"{_node_name(self.node_id, self.node_type, titles.get(self.node_id))} was interrupted")


def _sentence(error: dict) -> str:
    """The server's `message` and `details` as one text."""
    return ": ".join(part for part in (error.get("message"), error.get("details")) if part)


def _node_name(node_id: str | None, node_type: str | None, title: str | None) -> str:
    """A node's id, title and type, by which a user finds it in the graph."""
    return f'node {node_id} "{title}" ({node_type})' if title and title != node_type else f"node {node_id} ({node_type})"
