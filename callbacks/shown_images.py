"""How many images of each origin and class the model was really shown, in TensorBoard."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from dermsynth.contracts import Batch, Classed
from dermsynth.run.checkpoints import datamodule_of

ORIGINS = ("real", "synthetic")
KEY = "shown"


class ShownImages(Callback):
    """Logs at the end of each epoch what its training batches held: `shown/real/MEL`, `shown/synthetic/MEL` and so on.

    It counts the batches that the model has taken, over all ranks, not what the mix promised. A last epoch that
    `max_steps` cuts short is logged, as far as it went, only if it is the first one: after whole epochs its few images
    would look as if the mix had changed. The counts of a running epoch are in the checkpoints, so that a resumed run
    continues counting.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin at zero; a checkpoint is loaded after this."""
        #: int64 `[2, C]` of this rank, on the batches' device, once there was one.
        self._counts: Tensor | None = None
        #: The same of all ranks, as the checkpoint had it.
        self._before: Tensor | None = None
        self._epoch = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Log the epoch before, if the run was interrupted between its last batch and its end."""
        # Lightning then calls neither the end of that epoch nor the start of this one.
        if trainer.current_epoch != self._epoch:
            self._log(trainer, True)
        self._epoch = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count on the batch's device, so that nothing waits for a GPU."""
        label, synthetic = batch["label"], batch["synthetic"]
        is_class = label[:, None] == torch.arange(len(_classes(trainer)), device=label.device)
        of_origin = (is_class & ~synthetic[:, None], is_class & synthetic[:, None])
        counts = torch.stack([shown.sum(dim=0) for shown in of_origin])
        self._counts = counts if self._counts is None else self._counts + counts

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the sums over the ranks of a whole epoch, or of the first, and start from zero."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        self._log(trainer, trainer.current_epoch == 0 or progress.is_last_batch)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the counts of the running epoch; every rank comes here."""
        checkpoint[KEY] = {"epoch": self._epoch, "counts": self._sums(trainer)}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        if KEY in checkpoint:
            self._epoch, self._before = checkpoint[KEY]["epoch"], checkpoint[KEY]["counts"]

    def _sums(self, trainer: L.Trainer) -> Tensor | None:
        """Of all ranks, on the CPU; None if no batch was counted."""
        if self._counts is None:
            return self._before
        # Reduction is in place, and the counting continues.
        sums = trainer.strategy.reduce(self._counts.clone(), reduce_op="sum").cpu()
        return sums if self._before is None else sums + self._before.cpu()

    def _log(self, trainer: L.Trainer, worth_showing: bool) -> None:
        sums = self._sums(trainer)
        self._counts = self._before = None
        if sums is None or not worth_showing:
            return
        values = {
            f"shown/{origin}/{name}": number
            for origin, row in zip(ORIGINS, sums.tolist(), strict=True)
            for name, number in zip(_classes(trainer), row, strict=True)
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def _classes(trainer: L.Trainer) -> list[str]:
    data = datamodule_of(trainer)
    assert isinstance(data, Classed)  # every data module of dermsynth is
    return data.classes
