"""Small files that claim much, and damaged ones: refused in one sentence that names the file, in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers_folder import write_folder
from safetensors.torch import load_file, save_file
from tiny import TINY, random_pipeline

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.models.config import ModelConfig
from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.training.state import TrainingState, check_settings, load_newest_state, save_state
from dreamvideo_core.weights.checkpoint import CONFIG_TENSOR, FORMAT, CheckpointError, config_text, load_checkpoint
from dreamvideo_core.weights.convert import convert
from dreamvideo_core.weights.sources import model_folder, open_model

DEEP = "[" * 100_000 + "]" * 100_000
TABLE = "text_encoder.text_model.embeddings.token_embedding.weight"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "tiny.safetensors"
    random_pipeline().save(path, dtype=torch.float32)
    return path


def refused(path: Path, *words: str, load=load_checkpoint) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and len(message) < 700


def with_config(whole: Path, target: Path, text: str) -> Path:
    save_file(load_file(whole), target, {FORMAT: text})
    return target


def header(**changes) -> str:
    return json.dumps({**json.loads(config_text(TINY)), **changes})


def settings(part: str, name: str, value: object) -> str:
    table = TINY.to_dict()
    (table if part == "" else table.setdefault(part, {}))[name] = value
    return header(config=table)


@pytest.mark.parametrize("text", [
    header(version=True), header(version="1"), header(version=1.0), header(version=0), header(version=[1]),
    header().replace('"version": 1', '"version": Infinity'), header().replace('"version": 1', '"version": NaN'),
    header(format=3), header(config=[]), header(config="x"), DEEP, '{"config": ' + DEEP + "}", POINTER, " ",
    header(config={"unet": []}), header(config={"unet": "x"}), header(config={"sampling": None}),
    header(config={"schedule": None}), header(config={"schedule": "x"}),
    header(config={"schedule": {"prediction_type": "epsilon"}}),
])  # fmt: skip
def test_a_configuration_that_is_none(whole, tmp_path, text):
    refused(with_config(whole, tmp_path / "odd.safetensors", text), "odd.safetensors", "damaged")


BAD_NUMBERS = [0, -1, 2**40, 1.5, True, "2", [2], {"a": 2}]


@pytest.mark.parametrize(("part", "name"), [
    ("unet", "layers_per_block"), ("unet", "in_channels"), ("unet", "temporal_conv_layers"), ("unet", "norm_num_groups"),
    ("unet", "cross_attention_dim"), ("unet", "attention_head_dim"), ("text_encoder", "num_hidden_layers"),
    ("text_encoder", "vocab_size"), ("text_encoder", "max_position_embeddings"), ("text_encoder", "hidden_size"),
    ("vae", "latent_channels"), ("vae", "layers_per_block"), ("sampling", "steps"), ("sampling", "width"),
    ("sampling", "num_frames"), ("schedule", "num_train_timesteps"),
])  # fmt: skip
@pytest.mark.parametrize("value", [*BAD_NUMBERS, None], ids=str)
def test_every_number_is_one_and_has_bounds(whole, tmp_path, part, name, value):
    refused(with_config(whole, tmp_path / "odd.safetensors", settings(part, name, value)), "odd.safetensors", f"{name} is")


@pytest.mark.parametrize(("part", "name", "value"), [
    ("unet", "block_out_channels", [16] * 9), ("unet", "block_out_channels", ["16", "32"]), ("unet", "block_out_channels", []),
    ("unet", "block_out_channels", [16, True]), ("unet", "block_out_channels", [16, [32]]), ("unet", "norm_eps", "small"),
    ("unet", "norm_eps", 5), ("unet", "transformer_in", 1), ("unet", "temporal_positions", "yes"),
    ("unet", "down_block_types", "DownBlock3D"), ("unet", "down_block_types", [1, 2]), ("retention", "fusion", ["add"]),
    ("text_encoder", "hidden_act", 5), ("text_encoder", "hidden_act", "os.system"), ("text_encoder", "num_attention_heads", 3),
    ("text_encoder", "pad_token_id", 50_000), ("vae", "block_out_channels", [64, 64]), ("vae", "layout", None),
    ("sampling", "text_scale", "9"), ("sampling", "width", 60), ("", "prediction_type", 3),
    ("schedule", "beta_start", 0), ("schedule", "beta_end", 0.5), ("schedule", "beta_schedule", "linear"),
    ("schedule", "rescale_betas_zero_snr", 1), ("schedule", "timestep_spacing", None), ("schedule", "steps_offset", 2),
    ("schedule", "base_scale", 0),
])  # fmt: skip
def test_every_other_setting_is_what_it_may_be(whole, tmp_path, part, name, value):
    refused(with_config(whole, tmp_path / "odd.safetensors", settings(part, name, value)), "odd.safetensors", name)


def test_every_setting_says_what_it_may_be():
    """A setting that is added later has bounds too."""
    for part in ModelConfig.from_dict(TINY.to_dict()).__dict__.values():
        for field in getattr(part, "__dataclass_fields__", {}).values():
            assert "check" in field.metadata, field.name


def packed(path: Path, count: int, rows: int = 3, **more: torch.Tensor) -> Path:
    tensors = {k: v for k, v in more.items()}
    tensors |= {f"{TABLE}#values": torch.ones(rows, 16), f"{TABLE}#rows": torch.arange(rows)}
    save_file(tensors | {f"{TABLE}#count": torch.tensor([count])}, path, {FORMAT: header(config={
        **TINY.to_dict(), "unet": None, "retention": None, "vae": None,
    })})  # fmt: skip
    return path


def test_a_packed_table_takes_no_memory_before_its_size_is_known_to_be_right(tmp_path):
    path = packed(tmp_path / "large.safetensors", 150_000_000)
    assert path.stat().st_size < 2000
    code = f"""
import resource
from pathlib import Path
from dreamvideo_core.weights.checkpoint import load_checkpoint
used = int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
try:
    load_checkpoint({str(path)!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("CheckpointError large.safetensors: the weights of 'text_encoder' do not fit the configuration")


@pytest.mark.parametrize(("pieces", "words"), [
    ({"rows": torch.tensor([0, 1, 99_999_999])}, "is damaged"),
    ({"rows": torch.tensor([0, 1, -5])}, "is damaged"),
    ({"rows": torch.arange(2)}, "do not fit together"),
    ({"rows": torch.zeros(3, 1, dtype=torch.long)}, "do not fit together"),
    ({"values": torch.ones(3)}, "do not fit together"),
    ({"count": torch.arange(2)}, "do not fit together"),
    ({"count": torch.tensor([float("nan")])}, "do not fit together"),
    ({"count": torch.tensor([-1])}, "it has 3 rows of -1"),
    ({"count": torch.tensor([2**62])}, "it has 3 rows of 4611686018427387904"),
])  # fmt: skip
def test_a_packed_table_whose_pieces_do_not_fit(whole, tmp_path, pieces, words):
    tensors = load_file(whole)
    table = tensors.pop(TABLE)
    table[3:] = 0
    own = {"values": table[:3], "rows": torch.arange(3), "count": torch.tensor([len(table)])}
    tensors |= {f"{TABLE}#{name}": tensor for name, tensor in (own | pieces).items()}
    save_file(tensors, tmp_path / "odd.safetensors", {FORMAT: config_text(TINY)})
    refused(tmp_path / "odd.safetensors", "odd.safetensors", TABLE.partition(".")[2], words, load=Pipeline.load)


def test_a_table_that_is_there_packed_and_whole(whole, tmp_path):
    tensors = load_file(whole)
    pieces = {"values": tensors[TABLE][:3], "rows": torch.arange(3), "count": torch.tensor([len(tensors[TABLE])])}
    tensors |= {f"{TABLE}#{name}": tensor.clone() for name, tensor in pieces.items()}
    save_file(tensors, tmp_path / "odd.safetensors", {FORMAT: config_text(TINY)})
    refused(tmp_path / "odd.safetensors", "odd.safetensors: the table", "it is there as a whole too")


def test_a_configuration_that_is_a_huge_tensor(whole, tmp_path):
    tensors = load_file(whole) | {CONFIG_TENSOR: torch.zeros(2**26, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "odd.safetensors")
    refused(tmp_path / "odd.safetensors", "odd.safetensors: its configuration has 67,108,864 bytes; allowed")


@pytest.mark.parametrize(("part", "change"), [
    ("text_encoder", lambda t: [t.pop(k) for k in list(t) if "encoder.layers.0." in k]),
    ("vae", lambda t: t.update({"vae.taesd_decoder.1.weight": torch.ones(5)})),
    ("vae", lambda t: t.update({"vae.taesd_decoder.1.weight": t["vae.taesd_decoder.1.weight"].long()})),
    ("unet", lambda t: t.pop("unet.conv_in.weight")),
    ("retention", lambda t: t.update({"retention.spare": torch.ones(1)})),
])  # fmt: skip
def test_weights_are_compared_with_what_describes_them_when_a_file_is_opened(whole, tmp_path, part, change):
    tensors = load_file(whole)
    change(tensors)
    save_file(tensors, tmp_path / "odd.safetensors", {FORMAT: config_text(TINY)})
    refused(tmp_path / "odd.safetensors", f"odd.safetensors: the weights of {part!r} do not fit the configuration")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "model"
    write_folder(folder, max_shard_size="300KB")
    return folder


NO_JSON = [b"", POINTER.encode(), b"[]", b"3", b'"x"', b"null", DEEP.encode(), b'{"a": Infinity}', b"\xff\xfe", b'{"a": 1e999}']


@pytest.mark.parametrize("content", NO_JSON, ids=lambda content: content[:8].hex())
@pytest.mark.parametrize("file", [
    "unet/config.json", "text_encoder/config.json", "vae/config.json", "scheduler/scheduler_config.json",
    "tokenizer/special_tokens_map.json", "unet/diffusion_pytorch_model.safetensors.index.json",
])  # fmt: skip
def test_a_folders_json_that_is_none(original, file, content):
    path = original / file
    kept = path.read_bytes()
    path.write_bytes(content)
    try:
        refused(original, path.name, load=open_model)
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(("file", "change"), [
    ("unet/config.json", {"layers_per_block": 10**9}), ("unet/config.json", {"_class_name": 5}),
    ("unet/config.json", {"_class_name": ["UNet2DConditionModel"]}), ("unet/config.json", {"_class_name": {"a": 1}}),
    ("unet/config.json", {"block_out_channels": None}), ("text_encoder/config.json", {"architectures": 3}),
    ("text_encoder/config.json", {"num_hidden_layers": 1}), ("text_encoder/config.json", {"hidden_act": "relu"}),
    ("vae/config.json", {"norm_num_groups": None}), ("vae/config.json", {"scaling_factor": "0.18215"}),
    ("vae/config.json", {"latent_channels": 5}), ("scheduler/scheduler_config.json", {"prediction_type": ["epsilon"]}),
    ("unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": []}),
    ("unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"a": 5}}),
    ("unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"a": "../config.json"}}),
    ("unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"a": "x\0y"}}),
])  # fmt: skip
def test_a_folders_setting_that_is_none(original, file, change):
    path = original / file
    kept = path.read_bytes()
    path.write_text(json.dumps({**json.loads(kept), **change}))
    try:
        refused(original, "model", load=open_model)
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(("given", "words"), [
    ("I2VGenXLUNet", "the U-Net of I2VGen-XL"), ("UNetSpatioTemporalConditionModel", "Stable Video Diffusion"),
    ("VideoLDMUNet3DConditionModel", "ConsistI2V"), ("UNetMotionModel", "AnimateDiff"),
    ("UNet2DConditionModel", "an image U-Net"),
])  # fmt: skip
def test_a_folder_of_another_family_is_named(tmp_path, given, words):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "config.json").write_text(json.dumps({"_class_name": given}))
    refused(tmp_path / "model", f"its class is {given!r}", words, load=open_model)


@pytest.mark.parametrize(
    "reference", [b"\xff\xfe", b"a" * 5000, b"/elsewhere", b"../../other", b"..", b"a\0b", b"C:\\x", b"a\nb", b""], ids=repr
)
def test_a_hub_caches_reference_leads_nowhere_else(tmp_path, reference):
    for folder in (tmp_path / "other", tmp_path / "cache" / "snapshots" / "aaa"):
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "config.json").write_text("{}")
    (tmp_path / "cache" / "refs").mkdir()
    reference = reference.replace(b"/elsewhere", os.fsencode(tmp_path / "other"))
    (tmp_path / "cache" / "refs" / "main").write_bytes(reference)
    told = []
    assert model_folder(tmp_path / "cache", told.append) is None
    assert len(told) == 1 and "refs/main" in told[0] and "the name of a folder in snapshots" in told[0]
    refused(tmp_path / "cache", "refs/main", load=open_model)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes among its files")
def test_pipes_in_place_of_files_are_not_waited_for(tmp_path):
    (tmp_path / "cache" / "refs").mkdir(parents=True)
    os.mkfifo(tmp_path / "cache" / "refs" / "main")
    os.mkfifo(tmp_path / "config.json")
    code = """
from pathlib import Path
from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.json_files import read_object
from dreamvideo_core.weights.sources import model_folder
print(model_folder(Path("cache"), print))
try:
    read_object(Path("config.json"), "a configuration")
except InputError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    told, found, refusal = run.stdout.splitlines()
    assert told.startswith(f"{Path('cache/refs/main')}: this cannot be read (it is no file)") and found == "None"
    assert refusal.startswith("config.json cannot be read as a configuration (it is no file)")


def test_a_folder_that_may_not_be_read(tmp_path_factory):
    """Root may read everything, so a process of nobody's looks where the tests run as root."""
    code = """
import os, sys, tempfile
from pathlib import Path
from dreamvideo_core.weights.sources import model_folder
with tempfile.TemporaryDirectory() as top:
    Path(top).chmod(0o755)
    closed = Path(top) / "lost+found"
    closed.mkdir()
    closed.chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    told = []
    print(model_folder(closed, told.append), told[0].removeprefix(top))
    os.seteuid(os.getuid())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("None ") and "this folder cannot be read (Permission denied)" in said


class Trap:
    def __reduce__(self):
        return (print, ("sprung",))


@pytest.mark.parametrize("damage", ["cut", "changed", "code", "empty"])
def test_a_damaged_pickle_is_spoken_of_in_our_words(tmp_path, damage):
    path = tmp_path / "model.bin"
    torch.save({"a": torch.randn(1000), "b": Trap()} if damage == "code" else {"a": torch.randn(1000)}, path)
    whole = path.read_bytes()
    spoiled = {"cut": whole[:2000], "changed": whole[:90] + b"\x99" * 40 + whole[130:], "code": whole, "empty": whole[:4]}
    path.write_bytes(spoiled[damage])
    with pytest.raises(CheckpointError) as caught:
        convert(path, tmp_path / "out.safetensors")
    said = str(caught.value)
    assert said.startswith("model.bin: this is no PyTorch file of weights alone") and "the .safetensors file" in said
    assert "weights_only" not in said and "torch" not in said.replace("PyTorch", "")
    assert ("could run code" in said) == (damage == "code")
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("content", [{5: torch.ones(1)}, {"state_dict": 5}, [torch.ones(1)], {"a": 3}, torch.ones(2)], ids=repr)
def test_a_pickle_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.ckpt: there are no named tensors in this file"):
        convert(tmp_path / "model.ckpt", tmp_path / "out.safetensors")


def test_a_training_state_does_not_hold_its_file(tmp_path):
    """Windows deletes no file that is mapped, and older states are deleted."""
    weights = {"a": torch.randn(2**16)}
    save_state(tmp_path, TrainingState(3, weights, {}, {"a": {"exp_avg": torch.randn(2**16)}}))
    state = load_newest_state(tmp_path)
    assert state.step == 3 and torch.equal(state.weights["a"], weights["a"])
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_damaged_training_state_is_named(tmp_path):
    save_state(tmp_path, TrainingState(3, {"a": torch.ones(9)}, {}, {}))
    path = tmp_path / "state-0000003.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"state-0000003\.safetensors is no state of a training.* delete it"):
        load_newest_state(tmp_path)
    (tmp_path / "settings.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"settings\.json cannot be read as .* began with: it is nested too deeply"):
        check_settings(tmp_path, {"a": 1}, {})
