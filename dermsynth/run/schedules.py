"""Learning-rate schedules per optimizer step, for all LightningModules; YAML names them by `class_path`."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dermsynth.errors import InputError

# What a resumed run's configuration says. A checkpoint only says where the schedule stood.
_CONFIGURED = ("warmup_steps", "total_steps", "floor")


class WarmupCosine(LambdaLR):
    """Linear warm-up (Goyal et al. 2017, sec. 2.2), then half a cosine (Loshchilov & Hutter 2017, eq. 5).

    The factor on the base learning rate rises from `1 / warmup_steps` at the first step to 1, then falls to
    `floor`, reached after `total_steps` and kept.

    Args:
        optimizer: the optimizer whose learning rates are scheduled.
        warmup_steps: optimizer steps of linear rise; 0 starts at the full rate.
        total_steps: optimizer steps of the whole run; by default those that the Trainer takes, `trainer.max_steps`.
        floor: last factor, in `[0, 1]`.

    Raises:
        InputError: the warm-up is not shorter than the run, or the floor is outside `[0, 1]`.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int | None = None, floor: float = 0.0
    ) -> None:
        if not warmup_steps >= 0:
            raise InputError(f"model.lr_scheduler.warmup_steps: {warmup_steps} must be at least 0.")
        if not 0 <= floor <= 1:
            raise InputError(f"model.lr_scheduler.floor: {floor} must lie in [0, 1].")
        self.warmup_steps, self.total_steps, self.floor = warmup_steps, total_steps, floor
        if total_steps is not None:
            self.end_after(total_steps)
        super().__init__(optimizer, lambda step: self._factor(step))

    def end_after(self, steps: int) -> None:
        """Set the optimizer steps of the whole run.

        Raises:
            InputError: the warm-up is not shorter.
        """
        if not self.warmup_steps < steps:
            raise InputError(
                f"model.lr_scheduler.warmup_steps: {self.warmup_steps} must be below the steps of the whole run, "
                f"{steps} (trainer.max_steps, or model.lr_scheduler.total_steps where it is given)."
            )
        self.total_steps = steps

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {name: value for name, value in super().state_dict().items() if name not in _CONFIGURED}

    def _factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.total_steps is None and step > self.warmup_steps:
            raise InputError(
                "model.lr_scheduler.total_steps: it must be given, as this model does not tell its schedule how long "
                "the run is."
            )
        # At its first step a schedule may not know its end yet.
        length = math.inf if self.total_steps is None else self.total_steps - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / length)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
