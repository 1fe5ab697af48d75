"""An autoencoder's validation images beside what it makes of them, in TensorBoard."""

from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

from dermsynth.errors import InputError
from dermsynth.grids import grid, name_rows

ROWS = ("real", "reconstructed")


class Reconstructions(Callback):
    """Draws two rows after each validation: images of its first batch, and below each its reconstruction.

    The model's `validation_step` returns `reconstruction`, float `[B, 3, H, W]` in [-1, 1], of the batch's
    `pixel_values`. The sanity check before training shows the untrained model.

    Args:
        images: in a row, at most as many as the first batch has.
    """

    def __init__(self, images: int = 6) -> None:
        if images < 1:
            raise InputError(f"Reconstructions.images: {images} must be at least 1.")
        self.images = images

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch of rank 0."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if batch_idx or not boards or not trainer.is_global_zero:
            return
        shown = [_pixels(part[: self.images]) for part in (batch["pixel_values"], outputs["reconstruction"])]
        sheet = name_rows(grid([image for row in shown for image in row], len(shown[0])), ROWS)
        for board in boards:
            board.add_image("val/reconstructions", sheet, trainer.global_step, dataformats="HWC")


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """Of float `[B, 3, H, W]` in [-1, 1]: uint8 `[B, H, W, 3]`; what is not finite is black."""
    scaled = ((images.detach().float() + 1) * 127.5).nan_to_num(0, 0, 0).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).cpu().numpy()
