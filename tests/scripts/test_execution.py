"""Reading what a server reported."""

import io
import re

import pytest
from comfy_host.errors import ExecutionFailed, PromptRejected
from comfy_host.execution import Event, Execution
from comfy_host.progress import Progress

EVENTS = [
    Event(0.0, "execution_cached", {"nodes": ["1"]}),
    Event(0.5, "executing", {"node": "2", "display_node": "2"}),
    Event(1.0, "executing", {"node": "3", "display_node": "3"}),
    Event(1.5, "progress", {"node": "3", "value": 1, "max": 2}),
    Event(1.6, "progress_text", {"node": "3", "text": "half of it"}),
    Event(2.0, "executing", {"node": "3.0.0.stage0", "display_node": "3"}),
    Event(4.0, "executing", {"node": "4", "display_node": "4"}),
    Event(4.5, "executing", {"node": None}),
]
FILES = [
    {"filename": "a.mp4", "subfolder": "video", "type": "output"},
    {"filename": "b.png", "subfolder": "", "type": "temp"},
]
HISTORY = {"outputs": {"4": {"images": FILES, "animated": [True], "text": "done"}}}


@pytest.fixture
def execution() -> Execution:
    return Execution("id", EVENTS, HISTORY)


def test_what_ran_and_what_was_cached(execution: Execution):
    assert execution.executed == ["2", "3", "3.0.0.stage0", "4"]
    assert execution.cached == ["1"]


def test_an_expansion_counts_for_its_node(execution: Execution):
    assert execution.seconds({"3"}) == 3.0
    assert execution.seconds({"2", "4"}) == 1.0
    assert execution.seconds(()) == 0


def test_only_files_in_the_output_folder_are_saved_ones(execution: Execution):
    assert [item["filename"] for item in execution.saved()] == ["a.mp4"]


def test_progress_is_a_line_a_node_and_its_words_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress({str(number): {"class_type": f"Node{number}", "inputs": {}} for number in range(1, 5)}, stream)
    for event in EVENTS:
        progress(event)
    lines = re.sub(r"  [\d.]+ s$", "", stream.getvalue(), flags=re.MULTILINE).splitlines()
    assert lines == ["[2/4] Node2", "[3/4] Node3", "    half of it", "[4/4] Node4"]


def test_on_a_terminal_words_stand_above_the_line_that_changes(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    progress = Progress({str(number): {"class_type": f"Node{number}", "inputs": {}} for number in range(1, 5)}, stream)
    for event in EVENTS:
        progress(event)
    screen = [re.sub(r".*\r\x1b\[K|  [\d.]+ s$", "", line) for line in stream.getvalue().split("\n")]
    assert screen == ["    half of it", "[4/4] Node4", ""]


def test_a_rejection_tells_the_servers_errors():
    answer = {
        "error": {"message": "Prompt outputs failed validation", "details": ""},
        "node_errors": {"2": {"class_type": "KSampler", "errors": [{"message": "Value too big", "details": "steps"}]}},
    }
    assert str(PromptRejected(answer, {"2": "Sampler"})).splitlines() == [
        "the server rejected the workflow: Prompt outputs failed validation",
        '  node 2 "Sampler" (KSampler): Value too big: steps',
    ]


def test_a_failure_tells_the_node_and_the_message():
    data = {"node_id": "2", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "no frames\n"}
    assert str(ExecutionFailed(data, {})) == "node 2 (KSampler) raised ValueError: no frames"
