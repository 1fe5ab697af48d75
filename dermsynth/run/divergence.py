"""A training whose loss or weights are not finite ends with one line, and leaves no checkpoint of them."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from dermsynth.errors import InputError
from dermsynth.run.ranks import mean_over_ranks

_ADVICE = (
    "Training has diverged, or began with broken weights or numbers. Checkpoints from before are as they were; begin "
    "again in another --run, for example with a lower learning rate, or under precision 32-true: float16 (16-true) "
    "ends at 65,504, and an optimizer's eps of 1e-8 is 0 in it."
)


class FiniteLoss(Callback):
    """Ends a training whose loss is not finite: where a step is logged, before a validation, and at the end.

    Between these the losses are only added up on the device, so that no step waits for a number. Each process looks at
    the sum over all of them, so they end together.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss up; look at it where the optimizer step is logged, and at the last, which is saved."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # NaN and infinity stay in a sum.
            self._total = loss.detach().float() + (0 if self._total is None else self._total)
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if stepped and ((every and self._step % every == 0) or self._step == trainer.max_steps):
            self._look()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the losses since the last time."""
        self._look()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the held-out loss, before a checkpoint is kept for it."""
        for name, value in trainer.callback_metrics.items():
            if name.rpartition("/")[2] == "loss" and not torch.as_tensor(value).isfinite().all():
                raise InputError(f"{name} is {float(value)} at step {trainer.global_step}. {_ADVICE}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the losses since the last time."""
        self._look()

    def _look(self) -> None:
        if self._total is None:
            return
        value, self._total = float(mean_over_ranks(self._total)), None
        if not torch.tensor(value).isfinite():
            raise InputError(f"train/loss is {value} at or before step {self._step}. {_ADVICE}")


def refuse_broken_weights(checkpoint: Mapping[str, Any]) -> None:
    """Refuse to keep weights that are not finite.

    Args:
        checkpoint: as Lightning makes it; what is read here goes to the disk anyway.

    Raises:
        InputError: saying how many tensors are not finite.
    """
    for key in ("state_dict", "current_model_state"):
        tensors = {name: value for name, value in checkpoint.get(key, {}).items() if isinstance(value, Tensor)}
        broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
        if broken:
            raise InputError(
                f"{len(broken)} of {len(tensors)} weights are not finite, such as {broken[0]}; no checkpoint is "
                f"written of them. {_ADVICE}"
            )
