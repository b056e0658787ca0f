"""Safetensors files that are read and written a tensor at a time, against the safetensors library."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamvideo_core.weights.tensor_files import DamagedTensor, LazyTensors, write_tensors

TENSORS = {
    "odd": torch.arange(3, dtype=torch.uint8),
    "matrix": torch.randn(3, 5),
    "half": torch.randn(7).half(),
    "brain": torch.randn(2, 2).bfloat16(),
    "eight": torch.randn(5).to(torch.float8_e4m3fn),
    "count": torch.tensor([9]),
    "single": torch.tensor(2.5),
    "turned": torch.randn(4, 6).T,
    "empty": torch.zeros(0, 4),
}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.float(), b.float())


def test_the_library_reads_what_was_written(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"key": "value"})
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == TENSORS.keys()
    assert all(same(read[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["key"] == "value"


def test_equal_tensors_give_equal_bytes(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, {})
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_type_for_numbers_with_fractions_alone(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, {}, torch.float16)
    read = load_file(tmp_path / "a")
    assert {name: tensor.dtype for name, tensor in read.items()} == {
        name: torch.float16 if tensor.is_floating_point() else tensor.dtype for name, tensor in TENSORS.items()
    }
    assert torch.equal(read["matrix"], TENSORS["matrix"].half())


def test_every_flipped_bit_in_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {})
    whole = path.read_bytes()
    data = len(whole) - sum(t.numel() * t.element_size() for t in TENSORS.values())
    assert all(same(LazyTensors.of_files([path])[name], tensor) for name, tensor in TENSORS.items())
    for place in range(data, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedTensor, match=r"a.safetensors: '\w+' is not what was written .* download it again"):
            list(LazyTensors.of_files([path]).values())


def test_a_file_without_checksums_is_read_as_it_is(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a", {"crc32": "00"})
    assert torch.equal(LazyTensors.of_files([tmp_path / "a"])["a"], torch.ones(2))


def test_a_number_too_large_for_half_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"loud has a value of 1e\+05, too large for fp16; choose bf16 or fp32"):
        write_tensors(tmp_path / "a", {"loud": torch.tensor([1.0, -1e5])}, {}, torch.float16)
    assert not list(tmp_path.iterdir())


def test_progress_ends_with_all_bytes(tmp_path):
    seen = []
    write_tensors(tmp_path / "a", TENSORS, {}, on_tensor=lambda done, total: seen.append((done, total)))
    total = sum(t.numel() * t.element_size() for t in TENSORS.values())
    assert seen == sorted(seen) and seen[-1] == (total, total) and len(seen) == len(TENSORS)


def test_lazy_tensors_of_several_files(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "1")
    save_file({"b": torch.zeros(3)}, tmp_path / "2")
    tensors = LazyTensors.of_files([tmp_path / "1", tmp_path / "2"])
    assert set(tensors) == {"a", "b"} and len(tensors) == 2
    tensors.release()
    assert torch.equal(tensors["b"], torch.zeros(3))
    with pytest.raises(KeyError):
        tensors["c"]


def test_lazy_tensors_are_made_only_when_asked_for():
    asked = []

    def change(name, tensor):
        asked.append(name)
        return tensor + 1

    tensors = LazyTensors.of({"a.x": torch.zeros(1), "b.x": torch.ones(1)})
    changed = tensors.renamed(lambda name: name[2:] if name.startswith("b.") else None).changed(change)
    assert list(changed) == ["x"] and not asked
    assert changed["x"].item() == 2 and asked == ["x"]
    assert set(changed | LazyTensors.of({"y": torch.zeros(1)})) == {"x", "y"}
