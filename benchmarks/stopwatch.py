"""Times the steps of a training in a process of its own: ours through Lightning, another by telling it of each step."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.measure import busy
from callbacks.throughput import Throughput, forget_peak_memory, peak_memory_gb


class Stopwatch(Callback):
    """Times `steps` batches after `warmup` ones, and writes what it found as JSON.

    Args:
        started: `time.time()` when the training was asked for.
        warmup: batches that are not timed, at least one.
        steps: batches that are.
        out: the file.
    """

    def __init__(self, started: float, warmup: int, steps: int, out: Path) -> None:
        self.started, self.warmup, self.steps, self.out = started, warmup, steps, out
        self.flops_per_image: float | None = None
        self._count, self._images = 0, 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Of several processes the first one's times are kept."""
        if trainer.global_rank:
            self.out = Path(os.devnull)

    def step(self, images: int, device: torch.device) -> bool:
        """A batch of so many images is done; returns whether it was the last."""
        self._count += 1
        if self._count > self.warmup:
            self._images += images
        if self._count in (1, self.warmup, self.warmup + self.steps):
            if device.type == "cuda":
                torch.cuda.synchronize()
            if self._count == 1:
                self._first = time.time() - self.started
            if self._count == self.warmup:
                forget_peak_memory(device)  # of loading, and of filling a cache
                self._wall, self._cpu = time.perf_counter(), busy()
        if self._count < self.warmup + self.steps:
            return False
        found = {
            "images": self._images,
            "wall": time.perf_counter() - self._wall,
            "cpu": busy() - self._cpu,
            "seconds_to_first_step": self._first,
            "peak_memory_gb": peak_memory_gb(device),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "flops_per_image": self.flops_per_image,
        }
        self.out.write_text(json.dumps(found), encoding="utf-8")
        return True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Told by Lightning; listed after `Throughput`, which counts the work of the first step."""
        counters = [c for c in trainer.callbacks if isinstance(c, Throughput)]  # type: ignore[attr-defined]
        self.flops_per_image = counters[0].flops_per_image if counters else None
        if self.step(len(batch["image_id"]), pl_module.device):
            trainer.should_stop = True
