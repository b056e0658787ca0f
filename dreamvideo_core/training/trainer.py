"""The one training loop, on accelerate: any objective, any number of processes, stopped and resumed exactly.

Every random draw is a function of (seed, step, process), so a resumed run repeats what an unbroken one would do.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .objectives import Objective
from .recipe import Phase
from .state import TrainingState, collect_moments, load_newest_state, restore_moments, save_state

BETAS = (0.9, 0.99)


def cosine_rate(step: int, phase: Phase) -> float:
    """Linear warm-up, then half a cosine down to `final_learning_rate` of the peak at the last step."""
    if step < phase.warmup_steps:
        return phase.learning_rate * (step + 1) / phase.warmup_steps
    progress = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return phase.learning_rate * (phase.final_learning_rate + (1 - phase.final_learning_rate) * fall)


def average_decay(step: int, phase: Phase) -> float:
    """Short memory at first, so that the average is not held back by the initial weights."""
    return min(phase.ema_decay, (1 + step) / (10 + step))


def fastest_attention(device: torch.device) -> AbstractContextManager:
    """On a CPU, plain matrix products: the fused kernel's backward pass costs 5 times as much on short sequences."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


class Trainer:
    """Runs one phase in `folder`; the result is the objective with averaged weights."""

    def __init__(self, objective: Objective, phase: Phase, folder: Path, accelerator: Accelerator, seed: int):
        self.objective, self.phase, self.folder, self.accelerator, self.seed = (
            objective, phase, folder, accelerator, seed,
        )  # fmt: skip
        self.parameters = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), phase.learning_rate, betas=BETAS, weight_decay=phase.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(objective, self.optimizer)
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.step = 0

    def resume(self) -> bool:
        """Go on from the newest state in the folder; False when there is none."""
        state = load_newest_state(self.folder)
        if state is None:
            return False
        self.step = state.step
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.weights[name])
                self.average[name].copy_(state.average[name])
        restore_moments(self._inner_optimizer, self.parameters, state.moments)
        return True

    def fit(self, minutes: float | None = None) -> bool:
        """Train to the phase's last step, or for `minutes`; True when the phase is finished."""
        started = checkpointed = time.monotonic()
        with self._progress() as bar:
            task = bar.add_task(self.phase.name, total=self.phase.steps, completed=self.step, note="")
            while self.step < self.phase.steps:
                losses = self._train_step()
                self.step += 1
                self._report(losses, bar, task, started)
                if self.step % self.phase.sample_every == 0 and self.accelerator.is_main_process:
                    self._sample()
                if time.monotonic() - checkpointed > 60 * self.phase.checkpoint_minutes:
                    self._checkpoint()
                    checkpointed = time.monotonic()
                if minutes is not None and time.monotonic() - started > 60 * minutes:
                    break
        self._checkpoint()
        return self.step >= self.phase.steps

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the objective, to be written or sampled from."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.average[name])

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return self.optimizer.optimizer

    def _train_step(self) -> dict[str, float]:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(int(np.random.SeedSequence([self.seed, self.step, rank]).generate_state(1)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(self.step, self.phase)
        batch = self.objective.batch(self.step * world + rank)
        with fastest_attention(self.accelerator.device):
            losses = self.model(batch)
            self.accelerator.backward(losses["loss"])
        losses["grad_norm"] = self.accelerator.clip_grad_norm_(self.parameters.values(), self.phase.max_grad_norm)
        self._check_finite(losses)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = average_decay(self.step, self.phase)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter, 1 - decay)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _check_finite(self, losses: dict[str, torch.Tensor]) -> None:
        """Stop before the weights take a step that would spoil them."""
        # With a gradient scaler (fp16) an infinite norm is part of the game: it skips the step itself.
        for name in ("loss",) if self.accelerator.scaler else ("loss", "grad_norm"):
            value = float(losses[name].detach())
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{name} is {value} at step {self.step + 1}; the states in {self.folder} are from before "
                    "it. Lower learning_rate or use mixed_precision = 'no', then resume."
                )

    def _report(self, losses: dict[str, float], bar: Progress, task, started: float) -> None:
        bar.update(task, completed=self.step, note=f"loss {losses['loss']:.4f}")
        if self.step % self.phase.log_every == 0 and self.accelerator.is_main_process:
            rate = cosine_rate(self.step, self.phase)
            line = {"step": self.step, "seconds": round(time.monotonic() - started, 1), "learning_rate": rate, **losses}
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")

    def _sample(self) -> None:
        trained = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.use_average()
        self.objective.eval()
        with self.accelerator.autocast():
            sheet = self.objective.sample_sheet()
        (self.folder / "samples").mkdir(exist_ok=True)
        sheet.save(self.folder / "samples" / f"step-{self.step:07d}.png")
        self.objective.train()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(trained[name])

    def _checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            moments = collect_moments(self._inner_optimizer, self.parameters)
            save_state(self.folder, TrainingState(self.step, dict(self.parameters), self.average, moments))
        self.accelerator.wait_for_everyone()

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, TextColumn("{task.fields[note]}"), disable=not self.accelerator.is_main_process)
