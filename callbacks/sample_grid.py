"""Sample grids in TensorBoard: the same prompts and seeds as training proceeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from callbacks.ema import averaged
from callbacks.throughput import stop_the_clock
from dermsynth.contracts import Generator
from dermsynth.errors import InputError
from dermsynth.grids import grid, name_rows

_AT_ONCE = 4  # images, beside what training holds in memory
_MOST_COLUMNS = 64


class SampleGrid(Callback):
    """Draws a grid, one row a prompt with its text: before the first step, after every so many, and after the last.

    The first one shows the base.

    With `callbacks.ema.EMA`, listed before it, the samples come from the averaged weights. The images are shared out
    over the ranks.

    Args:
        prompts: one row each.
        every_n_steps: draw after each so many optimizer steps.
        columns: images in a row; column k has the same seed in every row.
        seed: of the first column.
    """

    def __init__(self, prompts: list[str], every_n_steps: int, columns: int = 6, seed: int = 0) -> None:
        if every_n_steps < 1:
            raise InputError(f"SampleGrid.every_n_steps: {every_n_steps} must be at least 1.")
        if not prompts or not 1 <= columns <= _MOST_COLUMNS:
            raise InputError(
                f"SampleGrid: {len(prompts)} prompts, {columns} columns. Give a prompt, and 1 to {_MOST_COLUMNS}."
            )
        if not 0 <= seed < 2**32:
            raise InputError(f"SampleGrid.seed: {seed} must be from 0 to {2**32 - 1}.")
        self.prompts, self.every_n_steps, self.columns, self.seed = prompts, every_n_steps, columns, seed
        self._step = self._shown = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a model that makes no images, and prompts that would be cut."""
        if not isinstance(pl_module, Generator):
            raise InputError(
                f"SampleGrid: a {type(pl_module).__name__} makes no images of prompts. Leave the callback out."
            )
        pl_module.check_prompts(self.prompts, "SampleGrid.prompts")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the base, which a resumed run has done."""
        self._step = self._shown = trainer.global_step
        if self._step == 0:
            self._draw(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw after an optimizer step whose turn it is."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if stepped and self._step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what training ends with, if the last step has not."""
        if self._shown != trainer.global_step:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        """Sample a share on each rank; log on rank 0."""
        assert isinstance(module, Generator)
        self._shown = trainer.global_step
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards:
            return
        wanted = [(prompt, self.seed + column) for prompt in self.prompts for column in range(self.columns)]
        mine = wanted[trainer.global_rank :: trainer.world_size]
        stop_the_clock(trainer, module)
        with (
            averaged(trainer, module),
            _evaluating(module),
            module.whole(),
            trainer.precision_plugin.forward_context(),
        ):
            parts = [mine[start : start + _AT_ONCE] for start in range(0, len(mine), _AT_ONCE)]
            # An error on one rank would let the others wait; what has diverged is to be seen.
            images = [
                image
                for some in parts
                for image in module.sample([p for p, _ in some], [seed for _, seed in some], black_if_nan=True)
            ]
        if trainer.world_size > 1:
            shares: list[list[NDArray[np.uint8]]] = [[]] * trainer.world_size
            torch.distributed.all_gather_object(shares, images)
            images = [shares[n % trainer.world_size][n // trainer.world_size] for n in range(len(wanted))]
        if trainer.is_global_zero:
            sheet = name_rows(grid(images, self.columns), self.prompts)
            for board in boards:
                board.add_image("samples", sheet, trainer.global_step, dataformats="HWC")


@contextmanager
def _evaluating(module: LightningModule) -> Iterator[None]:
    """Without dropout; each part then has its own mode again, as frozen ones differ from the others."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
