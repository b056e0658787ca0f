"""The speed of training, and the share of time spent waiting for data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Sums over some steps: clips of all processes, seconds, and the seconds in which the loop waited for data."""

    steps: int = 0
    clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def __add__(self, other: Pace) -> Pace:
        return Pace(
            self.steps + other.steps, self.clips + other.clips, self.seconds + other.seconds, self.waited + other.waited
        )

    def figures(self) -> dict[str, float]:
        """Figures for the log; needs at least one step."""
        return {"clips_per_second": self.clips / self.seconds, "data_share": self.waited / self.seconds}

    def __str__(self) -> str:
        if not self.steps:
            return "no steps"
        return f"{self.clips / self.seconds:.1f} clips/s, {self.waited / self.seconds:.1%} of the time waiting for data"
