"""Random numbers of layers, such as dropout, that are the same when a run is resumed."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from dermsynth.seeds import Purpose, stream_seed


class BatchSeed(Callback):
    """Seeds torch's own generators before each training batch, from the run's seed, epoch, batch and rank.

    So no generator's state is needed in a checkpoint, and no two ranks drop the same units.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the generators of the CPU and of all devices."""
        torch.manual_seed(stream_seed(self.seed, Purpose.LAYERS, trainer.global_rank, batch_idx, trainer.current_epoch))
