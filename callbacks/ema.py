"""An exponential moving average of the trained weights, which validation, samples and exports use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from callbacks.seams import OpenAveraging
from dermsynth.errors import InputError


class EMA(OpenAveraging):
    """Lightning's weight averaging with a warm-up, of what is trained alone.

    The n-th update keeps min(decay, (1 + n) / (10 + n)) of the average, as in TensorFlow's ExponentialMovingAverage,
    so that a short run does not remember its random beginning; the first takes the weights as they are. Frozen weights
    are shared with the model and not copied.

    Args:
        decay: of the average per optimizer step, after the warm-up; from 0 to below 1.

    Raises:
        InputError: decay is out of its range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"callbacks.ema.EMA.decay: {decay} must be at least 0 and below 1; 0.999 is usual.")
        super().__init__(use_buffers=False)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average.

        Raises:
            InputError: the weights are kept in half precision or spread over devices.
        """
        if stage == "fit" and str(trainer.precision).endswith("-true") and trainer.precision != "32-true":
            raise InputError(
                f"trainer.precision: {trainer.precision} would round most of the average's changes away. Give "
                "bf16-mixed, or leave callbacks.ema.EMA out."
            )
        if pl_module.device_mesh is not None:
            raise InputError(
                "trainer.callbacks: callbacks.ema.EMA cannot average weights that are spread over devices."
            )
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            # On the host: read from a GPU, it would hold up every step.
            self.average.n_averaged = self.average.n_averaged.cpu()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device, where Lightning has moved it since."""
        self.average.module.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step."""
        if trainer.global_step <= self.updated_at:
            return
        self.updated_at = trainer.global_step
        pairs = zip(self.average.module.parameters(), pl_module.parameters(), strict=True)
        averages, current = zip(*[(kept, live) for kept, live in pairs if live.requires_grad], strict=True)
        count = int(self.average.n_averaged)
        kept = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        get_ema_multi_avg_fn(kept)(averages, current, count)
        self.average.n_averaged += 1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Fill the frozen parts in from the live model, which has them already, then do as Lightning does."""
        live = pl_module.state_dict()
        for name in ("state_dict", "current_model_state"):
            if name in checkpoint:
                checkpoint[name] = {**live, **checkpoint[name]}
        super().on_load_checkpoint(trainer, pl_module, checkpoint)


@contextmanager
def averaged(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """The averaged weights in the place of the trained ones, if the Trainer has an `EMA`."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
    for average in averages:
        average.swap(pl_module)
    try:
        yield
    finally:
        for average in averages:
            average.swap(pl_module)
