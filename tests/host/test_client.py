"""Talking to a real server: what the scripts and the other tests in this folder rely on."""

import copy

import pytest
from comfy_host.errors import ExecutionFailed, PromptRejected
from comfy_host.paths import PACK_NAME
from comfy_host.server import Server

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 2, "color": 255}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}, "_meta": {"title": "Turn"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "client"}, "_meta": {"title": "Save"}},
}


@pytest.fixture
def prompt() -> dict:
    return copy.deepcopy(PROMPT)


@pytest.mark.parametrize("name", ["server", "server_0_16_3"])
def test_a_run_reports_files_nodes_and_what_was_cached(request: pytest.FixtureRequest, name: str, prompt: dict):
    server: Server = request.getfixturevalue(name)
    first = server.client.run(prompt)
    assert first.executed == ["1", "2", "3"]
    assert [item["filename"] for item in first.outputs["3"]["images"]] == [item["filename"] for item in first.saved()]
    assert all((server.output / item["filename"]).is_file() for item in first.saved())

    prompt["3"]["inputs"]["filename_prefix"] = "again"
    second = server.client.run(prompt)
    assert second.executed == ["3"]
    assert set(second.cached) == {"1", "2"}


@pytest.mark.parametrize("name", ["server", "server_0_16_3"])
def test_what_a_node_says_is_heard(request: pytest.FixtureRequest, name: str):
    server: Server = request.getfixturevalue(name)
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 2, "color": 255}},
        "2": {"class_type": "FirstFrameFidelity", "inputs": {"image": ["1", 0], "frames": ["1", 0], "fit": "crop"}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    heard = [event.data for event in server.client.run(prompt).events if event.kind == "progress_text"]
    assert [(said["node"], said["text"][:14]) for said in heard] == [("2", "FFF_SSIM 1.000")]


def test_the_pack_is_loaded(server: Server):
    assert any(node["python_module"] == f"custom_nodes.{PACK_NAME}" for node in server.client.object_info().values())


def test_a_rejected_prompt_raises_with_the_nodes_errors(server: Server, prompt: dict):
    prompt["1"]["inputs"]["width"] = -1
    with pytest.raises(PromptRejected, match=r"node 1 \(EmptyImage\): Value -1 smaller than min of 1: width") as caught:
        server.client.run(prompt)
    assert list(caught.value.node_errors) == ["1"]


def test_a_prompt_of_which_only_a_part_is_valid_is_rejected(server: Server, prompt: dict):
    prompt["4"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}, "_meta": {"title": "Unconnected"}}
    with pytest.raises(PromptRejected, match="a part of it is not valid") as caught:
        server.client.run(prompt)
    assert '  node 4 "Unconnected" (SaveImage): Required input is missing: images' in str(caught.value).splitlines()


def test_a_failing_node_raises_with_its_message(server: Server, prompt: dict):
    prompt["3"]["inputs"]["filename_prefix"] = "../../outside"
    with pytest.raises(ExecutionFailed, match=r'node 3 "Save" \(SaveImage\) raised Exception') as caught:
        server.client.run(prompt)
    assert (caught.value.node_id, caught.value.node_type, caught.value.exception_type) == ("3", "SaveImage", "Exception")
    assert "outside the output folder" in caught.value.exception_message
    assert "get_save_image_path" in caught.value.traceback
