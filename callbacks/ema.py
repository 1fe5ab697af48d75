"""An exponential moving average of the trained weights, which validation, samples and exports use."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Lightning's EMA for checkpoints that leave the frozen parts out.

    Args:
        decay: of the average per optimizer step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        # Interpolating, unlike Lightning's weighted sum, leaves weights that do not change exactly as they are, and the
        # frozen parts are known by their hash.
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Fill the frozen parts in from the live model, which has them already, and go on as Lightning does."""
        live = pl_module.state_dict()
        for name in ("state_dict", "current_model_state"):
            if name in checkpoint:
                checkpoint[name] = {**live, **checkpoint[name]}
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
