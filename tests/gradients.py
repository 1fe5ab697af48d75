"""A callback that keeps what several processes make of their gradients."""

from pathlib import Path

import torch
from lightning import Callback
from torch.nn.parallel import DistributedDataParallel


class Gradients(Callback):
    """Writes the first step's gradients and the last one's weights of each rank to `RANK.pt` in the run's folder.

    Args:
        rounded: use the strategy's hook for gradients, which Lightning does on GPUs alone.
    """

    def __init__(self, rounded: bool) -> None:
        self.rounded, self.gradients = rounded, {}

    def on_train_start(self, trainer, pl_module):
        strategy = trainer.strategy
        assert isinstance(strategy.model, DistributedDataParallel)
        if self.rounded:
            hook = strategy._ddp_comm_hook
            # Under its own name torch takes it for NCCL alone; gloo can do it, too.
            strategy.model.register_comm_hook(strategy._ddp_comm_state, lambda state, bucket: hook(state, bucket))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not self.gradients:
            self.gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}

    def on_train_end(self, trainer, pl_module):
        file = Path(trainer.default_root_dir) / f"{trainer.global_rank}.pt"
        torch.save({"gradients": self.gradients, "weights": pl_module.state_dict()}, file)
