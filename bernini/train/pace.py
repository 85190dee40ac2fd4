"""How far a stage is, for a mixture that changes on the way (pair data of stage IIa, paper, section 4.1).

Progress counts optimiser steps. A run that goes on with other settings goes on from the progress that it
had: what faded does not come back, and the rest of the way is spread over the steps that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

# Progress is just short of 1, so that a stage of pair data alone still has something to draw in its last step.
LAST = 1.0 - 1e-9


@dataclass(frozen=True)
class Pace:
    """From `packs` packs a rank on: `steps` of `total` were taken by then, `progress` of the change was done."""

    total: int
    accumulate: int  # packs a rank in one step
    packs: int = 0
    steps: float = 0.0
    progress: float = 0.0

    def at(self, packs: int) -> float:
        """Progress in [0, 1) after that many packs a rank."""
        left = (self.total - self.steps) * self.accumulate
        done = (packs - self.packs) / left if left > 0 else 1.0
        return min(self.progress + (1.0 - self.progress) * done, LAST)

    def then(self, packs: int, total: int, accumulate: int) -> Pace:
        """Goes on after `packs` packs with these settings."""
        if (total, accumulate) == (self.total, self.accumulate):
            return self
        steps = self.steps + (packs - self.packs) / self.accumulate
        return Pace(total, accumulate, packs, steps, self.at(packs))
