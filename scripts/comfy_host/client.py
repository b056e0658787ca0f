"""A client of a running ComfyUI server."""

import asyncio
import json
import struct
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from .errors import ExecutionFailed, ExecutionInterrupted, PromptRejected, ServerFailed
from .execution import Event, Execution
from .logs import tail

Listener = Callable[[Event], None]
_TEXT = 3  # ComfyUI's BinaryEventTypes.TEXT: text that a node shows


class Client:
    """A client of the server at `address` (`127.0.0.1:8188`). Errors quote the end of the log at `log_path`."""

    def __init__(self, address: str, log_path: Path | None = None):
        self.address = address
        self.log_path = log_path
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """GET a path; returns the JSON answer."""
        return self._request(path)

    def post(self, path: str, payload: dict) -> Any:
        """POST JSON to a path; returns the JSON answer."""
        return self._request(path, json.dumps(payload).encode())

    def is_ready(self) -> bool:
        """Whether the server answers."""
        try:
            self.get("/system_stats")
        except (ServerFailed, urllib.error.HTTPError):
            return False
        return True

    def object_info(self) -> dict[str, dict]:
        """The schemas of the server's nodes by class name."""
        return self.get("/object_info")

    def run(
        self, prompt: dict, extra_data: dict | None = None, listener: Listener | None = None, timeout: float | None = None
    ) -> Execution:
        """Run an API-format prompt to its end.

        `listener` is told every event; `timeout` is in seconds. Raises `PromptRejected`, `ExecutionFailed`,
        `ExecutionInterrupted`, `ServerFailed` or `TimeoutError`.
        """
        try:
            return asyncio.run(asyncio.wait_for(self._run(prompt, extra_data or {}, listener), timeout))
        except aiohttp.ClientError as error:
            raise ServerFailed(f"the connection to the server broke: {error}{self._log_end()}") from error

    async def _run(self, prompt: dict, extra_data: dict, listener: Listener | None) -> Execution:
        client_id = uuid.uuid4().hex
        async with aiohttp.ClientSession() as session:
            url = f"http://{self.address}/ws?clientId={client_id}"
            async with session.ws_connect(url, max_msg_size=0) as socket:
                prompt_id = self._submit(prompt, extra_data, client_id)
                events = await self._follow(socket, prompt_id, prompt, listener)
        history = self.get(f"/history/{prompt_id}")[prompt_id]
        return Execution(prompt_id, events, history)

    def _submit(self, prompt: dict, extra_data: dict, client_id: str) -> str:
        """Queue a prompt and return its id. A prompt that the server would run only in part is rejected too."""
        payload = {"prompt": prompt, "extra_data": extra_data, "client_id": client_id}
        try:
            answer = self.post("/prompt", payload)
        except urllib.error.HTTPError as error:
            raise PromptRejected(_json_body(error), _titles(prompt)) from None
        if answer.get("node_errors"):
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            raise PromptRejected(answer, _titles(prompt))
        return answer["prompt_id"]

    async def _follow(
        self, socket: aiohttp.ClientWebSocketResponse, prompt_id: str, prompt: dict, listener: Listener | None
    ) -> list[Event]:
        """The events of a prompt until it is done."""
        events, titles = [], _titles(prompt)
        async for message in socket:
            event = _event(message)
            if event is None or not _is_of(event, prompt_id, prompt):
                continue
            events.append(event)
            if listener:
                listener(event)
            if event.kind == "execution_error":
                raise ExecutionFailed(event.data, titles)
            if event.kind == "execution_interrupted":
                raise ExecutionInterrupted(event.data, titles)
            if event.ends_prompt:
                return events
        raise ServerFailed("the server went away while it ran the workflow" + self._log_end())

    def _log_end(self) -> str:
        return f"; the end of {self.log_path}:\n{tail(self.log_path)}" if self.log_path else ""

    def _request(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://{self.address}{path}", body, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request) as answer:
                content = answer.read()
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            raise ServerFailed(f"the server at {self.address} does not answer: {error}") from None
        return json.loads(content) if content else None


def _event(message: aiohttp.WSMessage) -> Event | None:
    """The event in a message: JSON, or a node's text. None for other messages, such as previews."""
    now = time.monotonic()
    if message.type == aiohttp.WSMsgType.TEXT:
        content = json.loads(message.data)
        return Event(now, content.get("type", ""), content.get("data") or {})
    if message.type != aiohttp.WSMsgType.BINARY or struct.unpack_from(">I", message.data)[0] != _TEXT:
        return None
    begin = 8 + struct.unpack_from(">I", message.data, 4)[0]
    return Event(now, "progress_text", {"node": message.data[8:begin].decode(), "text": message.data[begin:].decode()})


def _is_of(event: Event, prompt_id: str, prompt: dict) -> bool:
    """Whether an event belongs to a prompt. A node's text names only the node, which may be one of an expansion."""
    if event.kind == "progress_text":
        return event.data["node"].partition(".")[0] in prompt
    return event.data.get("prompt_id") == prompt_id


def _titles(prompt: dict) -> dict[str, str]:
    """The title of every node that has one."""
    return {node_id: node["_meta"]["title"] for node_id, node in prompt.items() if "title" in node.get("_meta", {})}


def _json_body(error: urllib.error.HTTPError) -> dict:
    """The body of an HTTP error as JSON; any other body becomes its message."""
    text = error.read().decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return {"error": {"message": f"HTTP {error.code}", "details": text.strip()}}
