"""Learning-rate schedules per optimizer step, for all LightningModules; YAML names them by `class_path`."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dermsynth.errors import InputError


class WarmupCosine(LambdaLR):
    """Linear warm-up (Goyal et al. 2017, sec. 2.2), then half a cosine (Loshchilov & Hutter 2017, eq. 5).

    The factor on the base learning rate rises from `1 / warmup_steps` at the first step to 1, then falls to
    `floor`, reached after `total_steps` and kept.

    Args:
        optimizer: the optimizer whose learning rates are scheduled.
        warmup_steps: optimizer steps of linear rise; 0 starts at the full rate.
        total_steps: optimizer steps of the whole run, the same number as `trainer.max_steps`.
        floor: last factor, in `[0, 1]`.

    Raises:
        InputError: the warm-up is not shorter than the run, or the floor is outside `[0, 1]`.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float = 0.0) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise InputError(
                f"model.lr_scheduler.warmup_steps: {warmup_steps} must be at least 0 and below "
                f"model.lr_scheduler.total_steps, {total_steps}, which is the whole run (trainer.max_steps)."
            )
        if not 0 <= floor <= 1:
            raise InputError(f"model.lr_scheduler.floor: {floor} must lie in [0, 1].")

        # A closure, because LambdaLR leaves plain functions out of its state: a resumed run follows its
        # configuration, and the checkpoint only says where it stood.
        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, factor)
