"""How fast training is: images a second, TFLOP/s, the share of the device's peak, and memory."""

import re
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)

from callbacks.seams import attention_on_cpu, in_backward_pass, takes_tensors

now = time.perf_counter  # a clock in seconds

# Dense TFLOP/s of 16-bit products summed in 32 bits, from NVIDIA's data sheets; where one gives them with sparsity,
# half of that. Lightning's table mixes the two and does not know the name "NVIDIA H200".
_DENSE_PEAK = {
    r"H200 NVL|H100 NVL": 835.5,
    r"H100 PCIe": 756,
    r"H200|H100|GH200": 989.4,
    r"A100": 312,
    r"L40S": 362,
    r"L40": 181,
    r"L4": 121,
    r"A40": 149.7,
    r"RTX A6000": 154.8,
    r"RTX 4090": 165.2,
    r"RTX 3090": 71,
}


def dense_peak(device_name: str) -> float | None:
    """The most 16-bit TFLOP/s of an NVIDIA GPU without sparsity; None if it is not known.

    Args:
        device_name: as `torch.cuda.get_device_name` says it.
    """
    return next(
        (peak for names, peak in _DENSE_PEAK.items() if re.search(rf"\b({names})\b(?! Laptop)", device_name)), None
    )


def flop_counter() -> FlopCounterMode:
    """Counts 2 × multiply-adds of matrix products, convolutions and attention, also of attention on a CPU.

    What gradient checkpointing computes again in the backward pass is left out: the same model does the same work.
    """

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    on_cpu = dict(zip(attention_on_cpu(), (attention, backward), strict=True))
    formulas = {**flop_registry, **{operation: shape_wrapper(formula) for operation, formula in on_cpu.items()}}
    once = {operation: _unless_recomputed(formula) for operation, formula in formulas.items()}
    return FlopCounterMode(display=False, custom_mapping=once)


def _unless_recomputed(formula: Callable[..., int]) -> Callable[..., int]:
    def count(*args: Any, **kwargs: Any) -> int:
        # In a backward pass, gradients are wanted of nothing but what is computed again.
        recomputed = in_backward_pass() and torch.is_grad_enabled()
        return 0 if recomputed else formula(*args, **kwargs)

    return takes_tensors(count)


class Throughput(Callback):
    """Logs, at every `log_every_n_steps`, the speed since the last time.

    `throughput/images_per_second` of all devices; of each `throughput/tflops`, `throughput/mfu`, the share of its dense
    16-bit peak where that is known, and `throughput/peak_memory_gb`. Validation, samples and the writing of checkpoints
    are left out, of time and of a GPU's memory. The first interval, in which things are compiled and warmed up, is not
    logged.

    The work of an image is what the second batch took: forward and backward, and the frozen parts. What gradient
    checkpointing computes a second time does not count. For that batch alone compiled code is left aside, which takes
    more memory.
    """

    def __init__(self) -> None:
        #: Of one image in a training step; None before the second.
        self.flops_per_image: float | None = None
        self._counting = ExitStack()
        self._counter: FlopCounterMode | None = None
        self._images, self._seconds, self._peak_gb = 0, 0.0, 0.0
        self._warm = self._timing = False  # after the first batch, and after the first interval
        self._since: float | None = None  # None while the clock is stopped
        self._logged_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._warm = self._timing = False
        self._since, self._logged_step = None, trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Let the clock run; count the work of the second batch, as in the first models may still be loaded."""
        self._go_on(pl_module)
        if self.flops_per_image is None and self._warm:
            # A function that is compiled while operations are counted would never be compiled afterwards.
            self._counting.enter_context(torch.compiler.set_stance("force_eager"))
            self._counter = self._counting.enter_context(flop_counter())

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count no further than the gradients: other callbacks may work at the end of the batch."""
        self._counting.close()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Count images; log when it is time to."""
        images = len(batch["image_id"])
        if self._counter is not None:
            self.flops_per_image, self._counter = self._counter.get_total_flops() / images, None
        self._warm = True
        self._images += images
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or step % every or step == self._logged_step:
            return
        self._logged_step = step
        # Only here does the host wait for the device.
        self._pause(pl_module)
        if self._timing:
            metrics = self._metrics(trainer, pl_module)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)
        self._images, self._seconds, self._peak_gb, self._timing = 0, 0.0, 0.0, True
        self._go_on(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock until the next batch."""
        self._pause(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stop the clock until the next batch."""
        self._pause(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing switched on behind."""
        self._counting.close()

    def _go_on(self, pl_module: LightningModule) -> None:
        if self._timing and self._since is None:
            forget_peak_memory(pl_module.device)
            self._since = now()

    def _pause(self, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        if self._since is not None:
            self._seconds += now() - self._since
            self._peak_gb = max(self._peak_gb, peak_memory_gb(pl_module.device))
        self._since = None

    def _metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        speed = self._images / self._seconds
        tflops = speed * (self.flops_per_image or 0) / 1e12
        metrics = {
            "throughput/images_per_second": speed * trainer.world_size,
            "throughput/tflops": tflops,
            "throughput/peak_memory_gb": self._peak_gb,
        }
        on_gpu = pl_module.device.type == "cuda"
        peak = dense_peak(torch.cuda.get_device_name(pl_module.device)) if on_gpu else None
        if peak and str(trainer.precision).startswith(("bf16", "16")):
            metrics["throughput/mfu"] = tflops / peak
        return metrics


def stop_the_clock(trainer: Trainer, pl_module: LightningModule) -> None:
    """What comes until the next batch is no training: a `Throughput`, where there is one, leaves it out."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Throughput):
            callback.on_validation_start(trainer, pl_module)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory that was held: by tensors on a GPU since the last was forgotten, else ever by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_gb` of a GPU start from zero."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
