"""Generation as the usual script writes it: diffusers' pipeline in half precision, a call a batch, PNG files by Pillow.

It is what `benchmarks.gpu` compares with, at the same number of steps of the same sampler.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from benchmarks.stopwatch import Stopwatch


def generate(config: dict[str, Any], batch_size: int, out: Path, stopwatch: Stopwatch) -> None:
    """Generate until the stopwatch has what it wants.

    Args:
        config: of our `predict`, resolved.
        batch_size: images of a call.
        out: folder of the images.
        stopwatch: told of every batch.
    """
    device = torch.device("cpu" if config["trainer"]["accelerator"] == "cpu" else "cuda")
    model = config["model"]["init_args"]
    pipeline = StableDiffusionPipeline.from_pretrained(
        model["base"], torch_dtype=torch.float32 if device.type == "cpu" else torch.float16, safety_checker=None
    ).to(device)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    sampling = model["sampling"]
    number = 0
    while True:
        images = pipeline(
            ["a dermoscopic image of skin lesion"] * batch_size,
            num_inference_steps=sampling["steps"],
            guidance_scale=sampling["guidance_scale"],
        ).images
        for image in images:
            image.save(out / f"{number:06d}.png")
            number += 1
        if stopwatch.step(len(images), device):
            return
