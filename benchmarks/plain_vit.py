"""Training of a classifier as everyone writes it: transformers' model, a Dataset with Pillow, AdamW, autocast.

It is what `benchmarks.gpu` compares with, in the precision of our run and with as many loader processes.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForImageClassification

from benchmarks.loader import Plain
from benchmarks.stopwatch import Stopwatch
from dermsynth.data.sets import manifest


def train(config: dict[str, Any], stopwatch: Stopwatch) -> None:
    """Train until the stopwatch has what it wants.

    Args:
        config: of our run, resolved; its model is a mapping, for random weights.
        stopwatch: told of every step.
    """
    device = torch.device("cpu" if config["trainer"]["accelerator"] == "cpu" else "cuda")
    data = config["data"]["init_args"]
    fields = dict(config["model"]["init_args"]["model"])
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.05)
    half = config["trainer"]["precision"] == "bf16-mixed"
    root = Path(data["real"])
    loader = DataLoader(
        Plain([root / record.file_name for record in manifest.read(root).split("train")], data["size"]),
        data["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=data["num_workers"],
        persistent_workers=data["num_workers"] > 0,
        pin_memory=device.type == "cuda",
    )
    while True:
        for pixels, labels in loader:
            with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
                logits = model(pixel_values=pixels.to(device)).logits
                loss = F.cross_entropy(logits, labels.to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # for the progress bar
            if stopwatch.step(len(pixels), device):
                return
