"""Reading workflow files and overriding widgets."""

import json
from pathlib import Path

import pytest
from comfy_host import workflow
from comfy_host.errors import WorkflowInvalid

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Picture"}},
    "2": {"class_type": "KSampler", "inputs": {"seed": 1, "cfg": 7.5, "model": ["1", 0]}, "_meta": {"title": "Sampler"}},
    "3": {"class_type": "SaveVideo", "inputs": {"codec": "auto", "codec.encoding": "auto"}, "_meta": {"title": "v1. Save=it"}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "red"}, "_meta": {"title": "Prompt"}},
    "5": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}, "_meta": {"title": "Prompt"}},
    "6": {"class_type": "LoadDreamVideo", "inputs": {"cuda_graphs": False}, "_meta": {"title": "Model"}},
}


@pytest.mark.parametrize(
    ("text", "node_id", "name", "value"),
    [
        ("Sampler.seed=7", "2", "seed", 7),
        ("Sampler.cfg=2.5", "2", "cfg", 2.5),
        ("Picture.image=my cat.png", "1", "image", "my cat.png"),
        ("Picture.image=a=b", "1", "image", "a=b"),
        ("Picture.image=", "1", "image", ""),
        ('Picture.image="7"', "1", "image", "7"),
        ("v1. Save=it.codec=h264", "3", "codec", "h264"),
        ("v1. Save=it.codec.encoding=re-encode", "3", "codec.encoding", "re-encode"),
        ("5.text=blurry", "5", "text", "blurry"),
        ("Model.cuda_graphs=True", "6", "cuda_graphs", True),
        ("Model.cuda_graphs=false", "6", "cuda_graphs", False),
    ],
)
def test_an_override_names_a_node_and_a_widget(text, node_id, name, value):
    assert workflow.parse_override(text, PROMPT) == workflow.Override(node_id, name, value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Smpler.seed=7", r"begins with no node's title; the workflow has:\n  Picture\n  Sampler"),
        ("Sampler.sed=7", r'Sampler has no input "sed"; it has: cfg, model, seed'),
        ("Sampler.seed", "sets nothing"),
        ("Sampler.model=7", '"model" of Sampler is not a widget here: it comes from Picture'),
        ("Model.cuda_graphs=off", 'cuda_graphs of Model is "off"; allowed: true, false'),
        ("Prompt.text=blue", '2 nodes are named "Prompt"; use an id in place of the title: 4, 5'),
    ],
)
def test_a_wrong_override_says_what_there_is(text, complaint):
    with pytest.raises(WorkflowInvalid, match=complaint):
        workflow.parse_override(text, PROMPT)


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        (["COMBO", {"options": ["add", "concat"], "default": "add"}], ["add", "concat"]),
        ([["add", "concat"]], ["add", "concat"]),
        (["COMBO", {"remote": {"route": "/models"}}], []),
        (["INT", {"min": 0}], []),
        (["STRING"], []),
        ([], []),
    ],
)
def test_what_a_widget_offers(spec, choices):
    assert workflow.choices(spec) == choices


def test_overrides_leave_the_original_as_it_was():
    before = json.dumps(PROMPT)
    changed = workflow.apply(PROMPT, [workflow.Override("2", "seed", 7)])
    assert changed["2"]["inputs"] == {"seed": 7, "cfg": 7.5, "model": ["1", 0]}
    assert json.dumps(PROMPT) == before


@pytest.mark.parametrize(("content", "complaint"), [("{", "is not JSON"), ("[]", "holds a list, not an object")])
def test_a_file_that_is_no_workflow_is_refused(tmp_path: Path, content, complaint):
    file = tmp_path / "broken.json"
    file.write_text(content)
    with pytest.raises(WorkflowInvalid, match=complaint):
        workflow.load(file)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(WorkflowInvalid, match=r"none\.json cannot be read: No such file"):
        workflow.load(tmp_path / "none.json")
