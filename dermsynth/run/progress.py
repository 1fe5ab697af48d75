"""The progress bar: steps of the whole run, its time to go and its loss; images where nothing is trained."""

import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm

LOSS = "train/loss"


class RunProgress(TQDMProgressBar):
    """Steps of the run, not batches of an epoch; images in `validate`, `test` and `predict`.

    The loss is that of the last logged step, where the host waits for the device anyway.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One bar for the run; one that is resumed counts on from its step."""
        super().on_train_start(trainer, pl_module)
        bar, total = self.train_progress_bar, trainer.estimated_stepping_batches
        bar.total = None if math.isinf(total) else int(total)
        # `initial` keeps the steps of before out of the rate.
        bar.initial = bar.n = trainer.global_step
        bar.set_description("step")
        bar.unit = " steps"

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Epochs do not restart it."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on by optimizer steps."""
        bar, step = self.train_progress_bar, trainer.global_step
        if not self.is_enabled or step == bar.n:
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step % every == 0:
            loss = trainer.callback_metrics.get(LOSS)
            bar.set_postfix({} if loss is None else {"loss": f"{loss.item():.3g}"}, refresh=False)
        bar.update(step - bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing of the epoch is shown."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar of the validation."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count images."""
        self.has_dataloader_changed(0)  # notes which one it is, without which there is no number of batches
        _count_images(self.val_progress_bar, trainer.val_dataloaders, self.total_val_batches_current_dataloader)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move on by a batch of images."""
        _update(self.val_progress_bar, trainer.val_dataloaders)

    def on_test_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count images."""
        self.has_dataloader_changed(0)  # notes which one it is, without which there is no number of batches
        _count_images(self.test_progress_bar, trainer.test_dataloaders, self.total_test_batches_current_dataloader)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move on by a batch of images."""
        _update(self.test_progress_bar, trainer.test_dataloaders)

    def on_predict_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count images."""
        self.has_dataloader_changed(0)  # notes which one it is, without which there is no number of batches
        batches = self.total_predict_batches_current_dataloader
        _count_images(self.predict_progress_bar, trainer.predict_dataloaders, batches)

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move on by a batch of images."""
        _update(self.predict_progress_bar, trainer.predict_dataloaders)


def _count_images(bar: tqdm, loader: Any, batches: float) -> None:
    """Set the total, in images of this process; `loader` is the one DataLoader of the stage."""
    if bar.total is None:
        bar.unit = " images"
        bar.total = min(len(loader.batch_sampler.sampler), int(batches) * loader.batch_sampler.batch_size)


def _update(bar: tqdm, loader: Any) -> None:
    batch = loader.batch_sampler.batch_size
    bar.update(batch if bar.total is None else min(batch, bar.total - bar.n))
