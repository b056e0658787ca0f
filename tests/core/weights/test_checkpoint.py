"""Files: the same model gives the same bytes, and whatever is not a whole model is refused in words."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from schedules import DYNAMICRAFTER, I2VGEN
from tiny import TINY, random_pipeline

from dreamvideo_core.models.config import PRESETS, ConfigError, ModelConfig, ScheduleConfig
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline
from dreamvideo_core.weights.checkpoint import (
    CONFIG_TENSOR,
    FORMAT,
    Checkpoint,
    CheckpointError,
    config_tensor,
    describe,
    load_checkpoint,
    save_checkpoint,
)

OWN = {"unet", "retention", "text_encoder", "vae"}  # the parts of a model with a branch


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return random_pipeline()


@pytest.fixture(scope="module")
def path(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    pipeline.save(path, dtype=torch.float32)
    return path


@pytest.fixture
def rewrite(path, tmp_path):
    """Writes the file again, with other weights or another header."""

    def write(change=lambda tensors: None, header=None):
        tensors = load_file(path)
        change(tensors)
        target = tmp_path / "changed.safetensors"
        save_file(tensors, target, None if header is None else {FORMAT: header})
        return target

    return write


def header(**changes) -> str:
    return json.dumps({**json.loads(describe(TINY)), **changes})


def refused(path, load, *words):
    with pytest.raises(CheckpointError) as caught:
        load(path)
    for word in (path.name, *words) if load is load_checkpoint else words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_saving_what_was_loaded_gives_the_same_bytes(path, tmp_path):
    first = load_checkpoint(path)
    assert first.config == TINY and set(first.parts) == OWN and not first.lacks()
    save_checkpoint(tmp_path / "again.safetensors", first)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_pipeline_that_was_loaded_saves_the_same_bytes(pipeline, tmp_path):
    first, again = tmp_path / "first.safetensors", tmp_path / "again.safetensors"
    pipeline.save(first)
    Pipeline.load(first).save(again)
    assert first.read_bytes() == again.read_bytes()


def test_a_loaded_pipeline_makes_the_same_clip(pipeline, path):
    made, again = (p("the red circle moves left", seed=3) for p in (pipeline, Pipeline.load(path)))
    assert torch.equal(made, again)


def test_names_in_the_file_are_parts_and_diffusers_names(path):
    names = set(load_file(path))
    assert {name.partition(".")[0] for name in names} == OWN
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight" in names
    assert "retention.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight" in names
    assert "text_encoder.text_model.final_layer_norm.weight" in names


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json(preset):
    config = PRESETS[preset]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_model_of_the_usual_schedule_is_described_as_before_there_were_others(prediction_type):
    table = replace(TINY, schedule=ScheduleConfig(prediction_type=prediction_type)).to_dict()
    assert set(table) == {"unet", "retention", "text_encoder", "vae", "prediction_type", "sampling"}
    assert table["prediction_type"] == prediction_type


def test_the_shipped_file_is_written_again_byte_by_byte(tmp_path):
    save_checkpoint(tmp_path / "again.safetensors", load_checkpoint(SHIPPED))
    assert (tmp_path / "again.safetensors").read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize(
    "schedule", [DYNAMICRAFTER, replace(DYNAMICRAFTER, base_scale=0.3), I2VGEN, ScheduleConfig(beta_end=0.02)]
)
def test_a_schedule_survives_files(path, tmp_path, schedule):
    written = replace(load_checkpoint(path), config=replace(TINY, schedule=schedule))
    first, again = tmp_path / "first.safetensors", tmp_path / "again.safetensors"
    save_checkpoint(first, written)
    loaded = load_checkpoint(first)
    assert loaded.config == written.config
    save_checkpoint(again, loaded)
    assert again.read_bytes() == first.read_bytes()


def test_a_schedule_with_settings_of_a_newer_pack(rewrite):
    table = {**TINY.to_dict(), "schedule": {"beta_end": 0.02, "colour": "red"}}
    refused(rewrite(header=header(config=table)), load_checkpoint, "settings that this version does not know: ['colour']")


def test_layers_of_another_schedule_are_not_laid_over(path):
    base = load_checkpoint(path)
    assert base.overlaid(base.only(("temporal", "retention"))).config == TINY
    other = replace(base, config=replace(TINY, schedule=DYNAMICRAFTER)).only(("retention",))
    with pytest.raises(CheckpointError, match="its rescale_betas_zero_snr is True, this model's is False"):
        base.overlaid(other)


def test_the_configuration_may_be_a_tensor(path, rewrite):
    file = rewrite(lambda tensors: tensors.update({CONFIG_TENSOR: config_tensor(TINY)}))
    loaded, original = load_checkpoint(file), load_checkpoint(path)
    assert loaded.config == original.config
    assert {part: set(state) for part, state in loaded.parts.items()} == {p: set(s) for p, s in original.parts.items()}


def test_some_parts_only(pipeline, tmp_path):
    pipeline.save(tmp_path / "branch.safetensors", parts=("retention",))
    branch = load_checkpoint(tmp_path / "branch.safetensors")
    assert branch.lacks() == ("unet", "text_encoder", "vae")
    refused(tmp_path / "branch.safetensors", Pipeline.load, "no text_encoder and no unet and no vae")


def test_a_model_without_a_branch_loads_and_makes_clips(pipeline, tmp_path):
    pipeline.save(tmp_path / "text.safetensors", parts=("unet", "text_encoder", "vae"))
    loaded = Pipeline.load(tmp_path / "text.safetensors")
    assert loaded.model.retention is None
    assert loaded("a clip").shape == (1, 3, 3, 16, 16)


@pytest.mark.parametrize(
    ("keep", "words"),
    [(0, "the file is empty"), (5, "cut off"), (1000, "cut off within its header"), (-7, "cut off: 7 of its")],
)
def test_a_file_that_was_cut_off(path, tmp_path, keep, words):
    file = tmp_path / "cut.safetensors"
    file.write_bytes(path.read_bytes()[:keep])
    refused(file, load_checkpoint, words, "Copy or download it again")


def test_files_of_other_kinds(tmp_path, rewrite):
    (tmp_path / "picture.safetensors").write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    refused(tmp_path / "picture.safetensors", load_checkpoint, "this is no .safetensors file")
    refused(rewrite(), load_checkpoint, "a DreamVideo model that has lost its configuration")
    refused(tmp_path / "missing.safetensors", load_checkpoint, "no such file")
    refused(rewrite(header=header(format="other")), load_checkpoint, "damaged")


def test_a_newer_version_asks_for_an_update(rewrite):
    refused(rewrite(header=header(version=2)), load_checkpoint, "version 2", "up to 1", "Update")


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", "3", '"text"', "{}", header(config=None), header(config=5), header(version="x")]
)
def test_a_damaged_configuration(rewrite, text):
    refused(rewrite(header=text), load_checkpoint, "damaged")


@pytest.mark.parametrize(("part", "changes", "words"), [
    ("unet", {"block_out_channels": 5}, ("damaged",)),
    ("unet", {"norm_num_groups": 0}, ("norm_num_groups is 0",)),
    ("unet", {"norm_num_groups": 3}, ("norm_num_groups is 3", "does not divide")),
    ("unet", {"temporal_attention": "none"}, ("temporal_attention is 'none'", "transformer, self_attention")),
    ("unet", {"block_out_channels": [16]}, ("as many",)),
    ("unet", {"colour": "red"}, ("settings that this version does not know: ['colour']",)),
    ("retention", {"fusion": "multiply"}, ("fusion is 'multiply'", "add, concat")),
    ("text_encoder", {"hidden_size": 32}, ("cross_attention_dim is 16", "hidden_size is 32")),
])  # fmt: skip
def test_a_configuration_that_no_model_has(rewrite, part, changes, words):
    table = TINY.to_dict()
    table[part].update(changes)
    refused(rewrite(header=header(config=table)), load_checkpoint, *words)


def test_a_setting_that_is_missing_has_its_default(rewrite):
    table = TINY.to_dict()
    del table["text_encoder"]["pad_token_id"]
    assert load_checkpoint(rewrite(header=header(config=table))).config == TINY


def drop(prefix):
    def change(tensors):
        for key in [k for k in tensors if k.startswith(prefix)]:
            del tensors[key]

    return change


def test_parts_and_configuration_must_agree(rewrite):
    refused(rewrite(drop("vae."), describe(TINY)), load_checkpoint, "not written whole")
    refused(rewrite(header=describe(replace(TINY, vae=None))), load_checkpoint, "the weights hold")
    foreign = rewrite(lambda tensors: tensors.update({"lora.up": torch.ones(1)}), describe(TINY))
    refused(foreign, load_checkpoint, "'lora.up'", "no part")


@pytest.mark.parametrize("name", [
    "unet.conv_in.weight", "retention.zero_conv_mid.bias", "vae.vae_scale",
    "text_encoder.text_model.final_layer_norm.weight",
])  # fmt: skip
def test_every_part_is_read_strictly(rewrite, name):
    part, _, key = name.partition(".")
    refused(rewrite(drop(name), describe(TINY)), Pipeline.load, f"'{part}'", "1 missing", key)
    extra = rewrite(lambda tensors: tensors.update({f"{part}.spare": torch.ones(1)}), describe(TINY))
    refused(extra, Pipeline.load, f"'{part}'", "1 unknown", "'spare'")
    shape = rewrite(lambda tensors: tensors.update({name: torch.ones(3, 1)}), describe(TINY))
    refused(shape, Pipeline.load, f"'{part}'", key, "shape (3, 1)")


def test_a_checkpoint_that_does_not_fit_its_configuration_is_not_written(pipeline, tmp_path):
    with pytest.raises(CheckpointError):
        save_checkpoint(tmp_path / "half.safetensors", Checkpoint(TINY, {"vae": pipeline.autoencoder.state_dict()}))
    assert not list(tmp_path.iterdir())


def test_a_configuration_of_a_part_must_be_a_table():
    with pytest.raises(ConfigError, match="unet"):
        ModelConfig.from_dict({**TINY.to_dict(), "unet": 5})


def test_a_failing_write_leaves_the_old_file(path, tmp_path):
    checkpoint = load_checkpoint(path)
    target = tmp_path / "kept.safetensors"
    target.write_bytes(b"old")

    def fail(done, total):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(target, checkpoint, on_tensor=fail)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.safetensors"]


def test_rows_of_zeros_take_no_room(tmp_path):
    pipeline = random_pipeline()
    table = pipeline.text_encoder.model.get_input_embeddings().weight
    with torch.no_grad():
        table[100:] = 0
    dense = tmp_path / "dense.safetensors"
    random_pipeline().save(dense, dtype=torch.float32)
    sparse = tmp_path / "sparse.safetensors"
    pipeline.save(sparse, dtype=torch.float32)
    assert sparse.stat().st_size < dense.stat().st_size - table[100:].nbytes * 0.9
    loaded = load_checkpoint(sparse)
    name = "text_model.embeddings.token_embedding.weight"
    assert torch.equal(loaded.parts["text_encoder"][name], table)
    save_checkpoint(tmp_path / "again.safetensors", loaded)
    assert (tmp_path / "again.safetensors").read_bytes() == sparse.read_bytes()

    tensors = load_file(sparse)
    del tensors[f"text_encoder.{name}#rows"]
    damaged = tmp_path / "damaged.safetensors"
    save_file(tensors, damaged, {FORMAT: describe(TINY)})
    refused(damaged, load_checkpoint, "table", name)
