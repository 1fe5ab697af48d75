"""A GPU played by torch's meta device, whose tensors have shapes and no values, in training on a real Trainer.

What would make the host wait for a GPU is refused in a step, and so is an operation on tensors of both. That the device
has no values refuses the rest, such as a selection by mask. Unseen is `torch.tensor(numbers, device=…)`.
"""

import torch
from lightning import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("meta")


class _Accelerator(CPUAccelerator):
    def setup_device(self, device):
        pass

    @staticmethod
    def get_parallel_devices(devices):
        return [GPU] * devices


class Copies(TorchDispatchMode):
    """Sees each operation; outside of steps, whatever is read of the GPU is 0, and a single number 1."""

    def __init__(self, in_step=False):
        super().__init__()
        self.in_step = in_step

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name.removeprefix("aten::")
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        on_gpu = [tensor for tensor in tensors if tensor.device == GPU]
        if name == "is_pinned":
            return hasattr(args[0], "pinned")
        if name == "_pin_memory":
            pinned = args[0].clone()
            pinned.pinned = True
            return pinned
        if name == "_local_scalar_dense" and on_gpu:
            assert not self.in_step, "a step reads a number of the GPU"
            return 1
        if name == "_to_copy" and kwargs.get("device", args[0].device) != args[0].device:
            if on_gpu:
                assert not self.in_step, "a step copies from the GPU"
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            queued = kwargs.get("non_blocking") and hasattr(args[0], "pinned")
            assert queued or not self.in_step, "a step waits for a copy to the GPU, or its memory is not pinned"
        elif on_gpu:
            elsewhere = [tensor for tensor in tensors if tensor.device != GPU and tensor.dim()]
            assert not elsewhere, f"{function} takes tensors of the GPU and of the host"
        return function(*args, **kwargs)


class _Steps(Callback):
    """From the batch on the GPU to the end of the callbacks before; not the first step, in which models are loaded."""

    def __init__(self, copies):
        self.copies, self.steps = copies, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        assert {parameter.device for parameter in pl_module.parameters()} == {GPU}
        self.copies.in_step = batch_idx > 0
        self.steps += self.copies.in_step

    def on_train_batch_end(self, *_):
        self.copies.in_step = False

    def on_exception(self, *_):
        self.copies.in_step = False  # what is torn down is copied back


def fit_on_pretended_gpu(model, data, folder, callbacks=(), steps=3, **options):
    """Train, and return how many steps were watched."""
    copies = Copies()
    watched = _Steps(copies)
    trainer = Trainer(
        accelerator=_Accelerator(),
        strategy=SingleDeviceStrategy(GPU),
        devices=1,
        max_steps=steps,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[*callbacks, watched],
        **options,
    )
    with copies:
        trainer.fit(model, data)
    return watched.steps
