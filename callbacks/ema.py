"""An exponential moving average of the trained weights, which validation, samples and exports use."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Lightning's weight averaging for checkpoints that leave the frozen parts out, with a warm-up.

    The n-th update keeps min(decay, (1 + n) / (10 + n)) of the average, as in TensorFlow's ExponentialMovingAverage,
    so that a short run does not remember its random beginning.

    Args:
        decay: of the average per optimizer step, after the warm-up.
    """

    def __init__(self, decay: float = 0.999) -> None:
        def average(averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
            assert self._average_model is not None
            count = int(self._average_model.n_averaged)  # `updates` is a copy on the device
            # Interpolating, unlike a weighted sum, leaves frozen weights exactly as they are.
            torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + count) / (10 + count)))

        super().__init__(use_buffers=False, multi_avg_fn=average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average, its count of updates on the host: read from a GPU, it would hold up every step."""
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Fill the frozen parts in from the live model, which has them already, and go on as Lightning does."""
        live = pl_module.state_dict()
        for name in ("state_dict", "current_model_state"):
            if name in checkpoint:
                checkpoint[name] = {**live, **checkpoint[name]}
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
