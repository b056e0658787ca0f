"""The training loop, on accelerate: for any objective and any number of processes, and exactly resumable.

Random numbers depend only on (seed, step, process), so a resumed run takes the same steps as an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..common.checks import InputError
from ..common.progress import columns
from .objectives import Objective, Samples
from .optimizers import make_optimizer
from .pace import Pace
from .read_ahead import read_ahead
from .recipe import Phase
from .runlog import RunLog
from .state import TrainingState, collect_moments, load_newest_state, restore_moments, save_state


def cosine_rate(step: int, phase: Phase) -> float:
    """Linear warm-up, then half a cosine down to `final_learning_rate` of the peak at the last step."""
    if step < phase.warmup_steps:
        return phase.learning_rate * (step + 1) / phase.warmup_steps
    progress = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return phase.learning_rate * (phase.final_learning_rate + (1 - phase.final_learning_rate) * fall)


def average_decay(step: int, phase: Phase) -> float:
    """The decay of the averaged weights: small at first, so that the initial weights are soon forgotten."""
    return min(phase.ema_decay, (1 + step) / (10 + step))


def fastest_attention(device: torch.device) -> AbstractContextManager:
    """Attention by plain matrix products on a CPU: there the fused kernel's backward pass takes 5 times as long."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


class Trainer:
    """Trains an objective by one phase of a recipe; states and logs go into `folder`."""

    def __init__(self, objective: Objective, phase: Phase, folder: Path, accelerator: Accelerator, seed: int):
        self.objective, self.phase, self.folder, self.accelerator, self.seed = (
            objective, phase, folder, accelerator, seed,
        )  # fmt: skip
        self.parameters = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.model, self.optimizer = accelerator.prepare(objective, make_optimizer(self.parameters.values(), phase))
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()} if phase.ema_decay else {}
        self.step, self.pace = 0, Pace()

    def resume(self) -> bool:
        """Load the newest state in the folder; False if there is none."""
        state = load_newest_state(self.folder)
        if state is None:
            return False
        self.step = state.step
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.weights[name])
            for name, average in self.average.items():
                average.copy_(state.average[name])
        restore_moments(self._inner_optimizer, self.parameters, state.moments)
        return True

    def fit(self, minutes: float | None = None) -> bool:
        """Train to the phase's last step, or for `minutes`; True if the phase is finished."""
        started = saved = time.monotonic()
        main, recent = self.accelerator.is_main_process, Pace()
        batches = read_ahead(self.objective.batch, self._batch_numbers(), self.phase.readers)
        log_file = closing(RunLog(self.folder, self.step)) if main else nullcontext()
        with self._progress() as bar, closing(batches), log_file as log:
            task = bar.add_task(self.phase.name, total=self.phase.steps, completed=self.step, note="")
            if log is not None and self.step == 0:
                log.samples(0, self._samples())
            while self.step < self.phase.steps:
                figures, pace = self._train_step(batches)
                self.step += 1
                self.pace, recent = self.pace + pace, recent + pace
                bar.update(task, completed=self.step, note=_note(figures, recent))
                if self.step % self.phase.log_every == 0:
                    if log is not None:
                        seconds = round(time.monotonic() - started, 1)
                        log.figures(self.step, {"seconds": seconds, **figures, **recent.figures()})
                    recent = Pace()
                if log is not None and self.step % self.phase.sample_every == 0:
                    log.samples(self.step, self._samples())
                now = time.monotonic()
                save, stop = self._main_says(
                    now - saved > 60 * self.phase.checkpoint_minutes,
                    minutes is not None and now - started > 60 * minutes,
                )
                if save:
                    self._save_state()
                    saved = time.monotonic()
                    if log is not None and not bar.console.is_terminal:  # where the progress bar is not shown
                        done = f"phase {self.phase.name}: step {self.step} of {self.phase.steps}"
                        bar.console.print(f"{done}, {_note(figures, self.pace)}", soft_wrap=True)
                if stop:
                    break
        self._save_state()
        return self.step >= self.phase.steps

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the objective, for saving or sampling."""
        for name, average in self.average.items():
            self.parameters[name].copy_(average)

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return self.optimizer.optimizer

    def _main_says(self, *answers: bool) -> list[bool]:
        """The main process's answers. Clocks differ, but all processes must save and stop at the same step."""
        if self.accelerator.num_processes == 1:
            return list(answers)
        return broadcast(torch.tensor(answers, dtype=torch.int32, device=self.accelerator.device)).bool().tolist()

    def _batch_numbers(self) -> Iterator[int]:
        """The numbers of this process's batches from the next step on; all batches of a step are consecutive."""
        count = self.phase.gradient_accumulation
        for step in range(self.step, self.phase.steps):
            first = (step * self.accelerator.num_processes + self.accelerator.process_index) * count
            yield from range(first, first + count)

    def _train_step(self, batches: Iterator[dict[str, torch.Tensor]]) -> tuple[dict[str, float], Pace]:
        """Take one step. Returns its losses, gradient norm and learning rate, and its pace."""
        started = time.monotonic()
        rank, world, count = (
            self.accelerator.process_index, self.accelerator.num_processes, self.phase.gradient_accumulation,
        )  # fmt: skip
        torch.manual_seed(int(np.random.SeedSequence([self.seed, self.step, rank]).generate_state(1)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(self.step, self.phase)
        first, waited, clips = (self.step * world + rank) * count, 0.0, 0
        totals: dict[str, torch.Tensor] = {}
        for number in range(first, first + count):
            asked = time.monotonic()
            batch = send_to_device(next(batches), self.accelerator.device)
            waited += time.monotonic() - asked
            clips += world * self.phase.batch_size_of(number)
            losses = self._backward(batch, last=number == first + count - 1)
            totals = {name: totals.get(name, 0) + value.detach() / count for name, value in losses.items()}
        totals["grad_norm"] = self.accelerator.clip_grad_norm_(self.parameters.values(), self.phase.max_grad_norm)
        # In one transfer: the CPU waits for the device at each.
        figures = dict(zip(totals, torch.stack([value.float() for value in totals.values()]).tolist(), strict=True))
        self._check_finite(figures)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._update_average()
        pace = Pace(1, clips, time.monotonic() - started, waited)
        return {"learning_rate": cosine_rate(self.step, self.phase), **figures}, pace

    def _backward(self, batch: dict[str, torch.Tensor], last: bool) -> dict[str, torch.Tensor]:
        """Add a batch's gradients to the step's; processes average theirs at the step's last batch."""
        synchronised = nullcontext() if last else self.accelerator.no_sync(self.model)
        with synchronised, fastest_attention(self.accelerator.device):
            losses = self.model(batch)
            self.accelerator.backward(losses["loss"] / self.phase.gradient_accumulation)
        return losses

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average:
            update = get_ema_multi_avg_fn(average_decay(self.step, self.phase))
            update(list(self.average.values()), [self.parameters[name] for name in self.average], None)

    def _check_finite(self, figures: dict[str, float]) -> None:
        """Raise before a step that would spoil the weights."""
        # The gradient scaler of fp16 expects infinite norms now and then, and skips these steps itself.
        for name in ("loss",) if self.accelerator.scaler else ("loss", "grad_norm"):
            if not math.isfinite(figures[name]):
                raise InputError(
                    f"{name} is {figures[name]} at step {self.step + 1}; the states in {self.folder} are from before "
                    "it. Lower learning_rate or use mixed_precision = 'no', then resume."
                )

    def _samples(self) -> Samples:
        """Samples of the averaged weights."""
        trained = {n: self.parameters[n].detach().clone() for n in self.average}
        self.use_average()
        self.objective.eval()
        with self.accelerator.autocast():
            samples = self.objective.samples()
        self.objective.train()
        with torch.no_grad():
            for name, parameter in trained.items():
                self.parameters[name].copy_(parameter)
        return samples

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            moments = collect_moments(self._inner_optimizer, self.parameters)
            save_state(self.folder, TrainingState(self.step, dict(self.parameters), self.average, moments))
        self.accelerator.wait_for_everyone()

    def _progress(self) -> Progress:
        note = TextColumn("{task.fields[note]}")
        return Progress(*columns(MofNCompleteColumn()), note, disable=not self.accelerator.is_main_process)


def _note(figures: dict[str, float], pace: Pace) -> str:
    """The text beside the progress bar; together they fit into 80 columns."""
    figures = figures | pace.figures()
    speed = f"{figures['clips_per_second']:.1f} clips/s {figures['data_share']:.1%} waiting"
    return f"loss {figures['loss']:.4f} rate {figures['learning_rate']:.0e} {speed}"
