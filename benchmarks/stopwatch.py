"""Times the steps of a training in a process of its own: ours through Lightning, another by telling it of each step."""

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.measure import busy
from callbacks.throughput import Throughput, flop_counter, forget_peak_memory, peak_memory_gb


class Stopwatch(Callback):
    """Times `steps` batches after `warmup` ones, and writes what it found as JSON.

    Memory is that of all batches but the first, before which models are loaded and caches filled.

    Args:
        started: `time.time()` when the work was asked for.
        warmup: batches that are not timed, at least one.
        steps: batches that are.
        out: the file.
        laps: groups of equally many of the timed batches, whose times are also listed one by one.
    """

    def __init__(self, started: float, warmup: int, steps: int, out: Path, laps: int = 1) -> None:
        self.started, self.warmup, self.steps, self.out, self.laps = started, warmup, steps, out, laps
        self.flops_per_image: float | None = None
        self._count, self._images = 0, 0
        self._marks: list[float] = []  # the clock at the beginning of the first lap, and at the end of each

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Of several processes the first one's times are kept."""
        if trainer.global_rank:
            self.out = Path(os.devnull)

    def step(self, images: int, device: torch.device) -> bool:
        """A batch of so many images is done; returns whether it was the last."""
        self._count += 1
        timed = self._count - self.warmup
        if timed > 0:
            self._images += images
        ends_lap = timed >= 0 and timed % (self.steps // self.laps) == 0
        if device.type == "cuda" and (self._count == 1 or ends_lap):
            torch.cuda.synchronize()
        if self._count == 1:
            self._first = time.time() - self.started
            if device.type == "cuda":
                torch.cuda.empty_cache()  # or what is held for the first batch alone would count as reserved
            forget_peak_memory(device)
        if timed == 0:
            self._cpu = busy()
        if ends_lap:
            self._marks.append(time.perf_counter())
        if timed < self.steps:
            return False
        found = {
            "images": self._images,
            "wall": self._marks[-1] - self._marks[0],
            "laps": [end - begin for begin, end in pairwise(self._marks)],
            "cpu": busy() - self._cpu,
            "seconds_to_first_step": self._first,
            "peak_memory_gb": peak_memory_gb(device),
            "reserved_gb": torch.cuda.max_memory_reserved() / 1e9 if device.type == "cuda" else None,
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

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the work of the first batch, which no `Throughput` does here."""
        self._counter = flop_counter() if self.flops_per_image is None else None
        if self._counter:
            self._counter.__enter__()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Told by Lightning; listed after what writes the images, so that writing them counts."""
        if self._counter:
            self._counter.__exit__(None, None, None)
            self.flops_per_image = self._counter.get_total_flops() / len(batch["prompt"])
        self.step(len(batch["prompt"]), pl_module.device)
