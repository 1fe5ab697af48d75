"""Random numbers of layers, such as dropout, that are the same when a run goes on."""

from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


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
        place = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
