"""What a phase can choose: checkpointed gradients, gradients of several batches, optimisers, and what a full disk does."""

import json
import resource
import time
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tiny import TINY, inputs, random_model
from torch import nn

from dreamvideo_core.training.gradient_checkpointing import checkpoint_gradients
from dreamvideo_core.training.objectives import Objective, Samples
from dreamvideo_core.training.optimizers import make_optimizer
from dreamvideo_core.training.recipe import Phase
from dreamvideo_core.training.state import TrainingState, check_settings, load_newest_state, save_state
from dreamvideo_core.training.trainer import Trainer

PHASE = Phase("one", "autoencoder", steps=4, batch_size=2, learning_rate=0.1, warmup_steps=1, log_every=1)


def gradients(checkpointed: bool) -> dict[str, torch.Tensor]:
    model = random_model(TINY)
    if checkpointed:
        checkpoint_gradients(model)
    model(*inputs()).square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_checkpointed_gradients_are_the_same_to_the_last_bit_and_keep_less():
    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and all(torch.equal(plain[name], again[name]) for name in plain)
    kept = []
    for checkpointed in (False, True):
        model, count = random_model(TINY), []
        if checkpointed:
            checkpoint_gradients(model)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, count=count: count.append(x.numel()) or x, lambda x: x):
            model(*inputs())
        kept.append(sum(count))
    assert kept[1] < kept[0] / 2


class Line(Objective):
    """Weights that learn the numbers of their batches."""

    def __init__(self):
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.ones(4, 6, 3, 1, 1)), nn.Parameter(torch.ones(4))

    def batch(self, number):
        return {"x": torch.full((4,), float(number))}

    def forward(self, batch):
        return {"loss": ((self.kernel.mean((1, 2, 3, 4)) + self.bias - batch["x"]) ** 2).mean()}

    def samples(self):
        return Samples(Image.new("RGB", (4, 4)))


def trainer(folder, **settings) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(Line(), replace(PHASE, **settings), folder, Accelerator(cpu=True), seed=0)


def test_gradients_of_several_batches_are_their_mean(tmp_path):
    run = trainer(tmp_path, gradient_accumulation=3, steps=1, max_grad_norm=1e9, optimizer="adamw")
    seen = []
    run.optimizer.optimizer.register_step_pre_hook(lambda *_: seen.append(run.parameters["bias"].grad.clone()))
    assert run.fit()
    expected = sum(2 * (2 - torch.full((4,), float(n))) / 4 for n in range(3)) / 3
    torch.testing.assert_close(seen[0], expected)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["loss"] == pytest.approx((4 + 1 + 0) / 3)


class Slow(Line):
    """Every other batch takes a while to read."""

    def batch(self, number):
        time.sleep(0.0 if number % 2 else 0.1)
        return super().batch(number)


def test_the_log_says_how_long_all_steps_since_its_last_line_waited_for_data(tmp_path):
    run = Trainer(Slow(), replace(PHASE, readers=0, log_every=2), tmp_path, Accelerator(cpu=True), seed=0)
    assert run.fit()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(0.3 < line["data_share"] <= 1 and 0 < line["clips_per_second"] < 40 for line in lines)
    assert (run.pace.steps, run.pace.clips) == (4, 8) and run.pace.waited >= 0.2


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_optimisers_go_on_to_the_same_bits(tmp_path, optimizer, ema_decay):
    settings = {"optimizer": optimizer, "ema_decay": ema_decay}
    unbroken = trainer(tmp_path / "unbroken", **settings)
    assert unbroken.fit()
    for _ in range(4):
        part = trainer(tmp_path / "parts", **settings)
        part.resume()
        part.fit(minutes=0)
    for run in (unbroken, part):
        run.use_average()
    assert all(torch.equal(p, part.parameters[name]) for name, p in unbroken.parameters.items())
    assert unbroken.parameters["kernel"].shape == (4, 6, 3, 1, 1)
    state = load_newest_state(tmp_path / "parts")
    assert bool(state.average) == bool(ema_decay)


def test_adafactor_keeps_a_row_and_a_column_of_every_kernel():
    line = Line()
    optimizer = make_optimizer(line.parameters(), replace(PHASE, optimizer="adafactor"))
    line(line.batch(5))["loss"].backward()
    optimizer.step()
    assert line.kernel.shape == line.kernel.grad.shape == (4, 6, 3, 1, 1)
    kept = {key: value.numel() for key, value in optimizer.state[line.kernel].items()}
    assert kept == {"step": 1, "row_var": 4, "col_var": 18}


def test_a_full_disk_leaves_the_last_state_whole(tmp_path):
    weights = {"w": torch.arange(4000.0)}
    save_state(tmp_path, TrainingState(1, weights, {}, {}))
    (tmp_path / ".state-0000001.99.safetensors").write_text("what a killed process left")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"the state of step 2 could not be written .* make room, .* --resume"):
            save_state(tmp_path, TrainingState(2, weights, {}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = load_newest_state(tmp_path)
    assert state.step == 1 and torch.equal(state.weights["w"], weights["w"])
    save_state(tmp_path, TrainingState(2, weights, {}, {}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-0000001.safetensors", "state-0000002.safetensors"]


def test_a_setting_that_came_later_had_its_default(tmp_path):
    check_settings(tmp_path, {"steps": 3}, {})
    check_settings(tmp_path, {"steps": 3, "stride": 1}, {"stride": 1, "steps": None})
    with pytest.raises(ValueError, match="stride was 1 and is 4"):
        check_settings(tmp_path, {"steps": 3, "stride": 4}, {"stride": 1})
