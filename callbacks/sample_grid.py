"""Sample grids in TensorBoard: the same prompts and seeds as training goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from dermsynth.grids import grid

_AT_ONCE = 4  # images, beside what training holds in memory


class SampleGrid(Callback):
    """Draws a grid, one row a prompt, before the first step, which shows the base, and at each start of validation.

    List it after `callbacks.ema.EMA` and the samples come from the averaged weights. The images are shared out over the
    ranks.

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the base, which a run that goes on has done."""
        if trainer.global_step == 0:
            self._draw(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, where averaged weights are in their place by now."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._validations += 1
            if self._validations % self.every_n_validations == 0:
                self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were, so that a resumed run draws at the same ones."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def _draw(self, trainer: Trainer, module: Any) -> None:
        """Sample a share on each rank; log on rank 0."""
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards:
            return
        wanted = [(prompt, self.seed + column) for prompt in self.prompts for column in range(self.columns)]
        mine = wanted[trainer.global_rank :: trainer.world_size]
        with _evaluating(module), module.whole(), trainer.precision_plugin.forward_context():
            parts = [mine[start : start + _AT_ONCE] for start in range(0, len(mine), _AT_ONCE)]
            # An error on one rank would let the others wait; what has diverged is to be seen.
            images = [
                image
                for some in parts
                for image in module.sample(*map(list, zip(*some, strict=True)), black_if_nan=True)
            ]
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, images)
            images = [shares[n % trainer.world_size][n // trainer.world_size] for n in range(len(wanted))]
        if trainer.is_global_zero:
            sheet = grid(images, self.columns)
            for board in boards:
                board.add_image("samples", sheet, trainer.global_step, dataformats="HWC")
                board.add_text("samples/prompts", "  \n".join(self.prompts), trainer.global_step)


@contextmanager
def _evaluating(module: LightningModule) -> Iterator[None]:
    """Without dropout; each part then has its own mode again, as frozen ones differ from the others."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    yield
    for part, mode in modes:
        part.training = mode
