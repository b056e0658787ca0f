"""Which precision is chosen for a model where a person has not chosen one."""

import sys
from pathlib import Path

import pytest
import torch

from dreamvideo_core.models import precision
from dreamvideo_core.models.precision import LARGE, best_dtype, cpu_computes_in_bfloat16

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize(
    ("capable", "parameters", "dtype"),
    [
        (True, LARGE + 1, torch.bfloat16),
        (True, LARGE, torch.float32),
        (True, 0, torch.float32),
        (False, LARGE + 1, torch.float32),
        (False, LARGE, torch.float32),
    ],
)
def test_on_a_cpu(monkeypatch, capable, parameters, dtype):
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: capable)
    assert best_dtype(torch.device("cpu"), parameters) == dtype


@pytest.mark.parametrize(
    ("capability", "hip", "parameters", "dtype"),
    [
        ((9, 0), None, LARGE + 1, torch.bfloat16),
        ((8, 0), None, LARGE + 1, torch.bfloat16),
        ((7, 5), None, LARGE + 1, torch.float16),
        ((7, 5), "6.2", LARGE + 1, torch.bfloat16),
        ((9, 0), None, LARGE, torch.float32),
    ],
)
def test_on_a_gpu(monkeypatch, capability, hip, parameters, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert best_dtype(torch.device("cuda"), parameters) == dtype


def test_on_other_devices():
    assert best_dtype(torch.device("meta"), LARGE + 1) == torch.bfloat16  # which has every precision
    assert best_dtype(torch.device("fpga"), LARGE + 1) == torch.float16  # whose tensors torch refuses
    assert best_dtype(torch.device("fpga"), LARGE) == torch.float32


@pytest.mark.parametrize(
    ("capabilities", "able"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "aarch64", "bf16": True}, False),
        ({}, False),
    ],
)
def test_what_torch_says_of_the_cpu(monkeypatch, capabilities, able):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert cpu_computes_in_bfloat16() is able
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not cpu_computes_in_bfloat16()


@pytest.mark.parametrize(
    ("told", "able"),
    [
        ({"_is_avx512_bf16_supported": True, "_is_amx_tile_supported": False}, True),
        ({"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": True}, True),
        ({"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}, False),
        ({"_is_amx_tile_supported": True}, True),
        ({}, False),
    ],
)
def test_what_older_torch_says(monkeypatch, told, able):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name in ("get_capabilities", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    for name, value in told.items():
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)
    assert cpu_computes_in_bfloat16() is able


@pytest.mark.skipif(sys.platform != "linux" or not CPU_INFO.is_file(), reason="the kernel's own list of instructions")
def test_this_cpu():
    words = CPU_INFO.read_text().split()
    assert cpu_computes_in_bfloat16() is ("avx512_bf16" in words or "amx_bf16" in words)
