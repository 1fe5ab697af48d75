"""Sample grids in TensorBoard: the same prompts and seeds at every validation."""

from typing import Any

import torch.distributed
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from dermsynth.grids import grid


class SampleGrid(Callback):
    """Draws a grid, one row a prompt, at each start of validation; the sanity check's is the base's.

    List it after `callbacks.ema.EMA` and the samples come from the averaged weights.

    Args:
        prompts: one row each.
        columns: images in a row; column k has the same seed in every row.
        every_n_validations: draw at every n-th validation.
        seed: of the first column.
    """

    def __init__(self, prompts: list[str], columns: int = 6, every_n_validations: int = 1, seed: int = 0) -> None:
        self.prompts, self.columns, self.seed = prompts, columns, seed
        self.every_n_validations = every_n_validations
        self._validations = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample a share on each rank; log on rank 0."""
        due = self._validations % self.every_n_validations == 0
        self._validations += not trainer.sanity_checking
        if not due or not isinstance(trainer.logger, TensorBoardLogger):
            return
        module: Any = pl_module
        wanted = [(prompt, self.seed + column) for prompt in self.prompts for column in range(self.columns)]
        mine = wanted[trainer.global_rank :: trainer.world_size]
        with trainer.precision_plugin.forward_context():
            images = list(module.sample([p for p, _ in mine], [s for _, s in mine])) if mine else []
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, images)
            images = [shares[n % trainer.world_size][n // trainer.world_size] for n in range(len(wanted))]
        if trainer.is_global_zero:
            board = trainer.logger.experiment
            board.add_image("samples", grid(images, self.columns), trainer.global_step, dataformats="HWC")
            board.add_text("samples/prompts", "  \n".join(self.prompts), trainer.global_step)
