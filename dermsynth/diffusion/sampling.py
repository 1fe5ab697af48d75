"""Prompts and seeds to images. Pure torch and diffusers."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)
from numpy.typing import NDArray

from dermsynth.diffusion.parts import Parts
from dermsynth.errors import InputError

_MOST_STEPS = 1000  # of Stable Diffusion's noise schedule
SchedulerName = Literal["dpmsolver++", "ddim", "euler", "euler_a", "pndm"]

_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}


@dataclass(frozen=True)
class Sampling:
    """How images are sampled from the model.

    Args:
        steps: of the sampler.
        guidance_scale: of classifier-free guidance (Ho & Salimans 2022); 1 turns it off. About 2 to 3 has been found
            better than 7.5 for training classifiers (Sarıyıldız et al. 2023).
        scheduler: the sampler. `pndm` without its warm-up steps is PLMS.
        negative_prompt: what guidance leads away from.
    """

    steps: int = 25
    guidance_scale: float = 7.5
    scheduler: SchedulerName = "dpmsolver++"
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MOST_STEPS:
            raise InputError(f"model.sampling.steps: {self.steps} must be from 1 to {_MOST_STEPS}.")
        if not 1 <= self.guidance_scale < math.inf:
            raise InputError(f"model.sampling.guidance_scale: {self.guidance_scale} must be at least 1.")


def sample(
    parts: Parts, prompts: Sequence[str], seeds: Sequence[int], how: Sampling, black_if_nan: bool = False
) -> NDArray[np.uint8]:
    """Draw one image a prompt, of the parts' weights as they are.

    Each image's noise comes from its own seed and is made on the CPU, so neither the device nor the rest of the batch
    changes it.

    Args:
        parts: the model.
        prompts: B texts.
        seeds: B numbers in `[0, 2⁶³)`.
        how: sampler settings.
        black_if_nan: give black images, with a warning, where the model gives NaN.

    Returns:
        uint8 `[B, H, W, 3]`, as large as the UNet was made for.

    Raises:
        InputError: an image is NaN, unless it is to be black; or the sampler does not go with the noise schedule.
    """
    # Made each time, which takes two milliseconds: one that was kept would hold on to parts that were let go.
    pipeline = parts.pipeline(_sampler(parts, how))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with torch.inference_mode():
        images = pipeline(
            prompt=list(prompts),
            negative_prompt=[how.negative_prompt] * len(prompts) if how.guidance_scale > 1 else None,
            num_inference_steps=how.steps,
            guidance_scale=how.guidance_scale,
            generator=generators,
            output_type="np",
        ).images
    images = np.asarray(images, dtype=np.float32)
    broken = ~np.isfinite(images).all(axis=(1, 2, 3))
    if broken.any():  # they would silently become black
        if not black_if_nan:
            raise InputError(
                "model.base: its images are NaN. If its VAE is not made for half precision, give "
                "--trainer.precision bf16-mixed or 32-true; else its weights are broken."
            )
        warnings.warn(
            f"{broken.sum()} of {len(images)} sampled images are NaN and shown in black: training has diverged, or the "
            "VAE is not made for half precision.",
            stacklevel=2,
        )
        images[broken] = 0
    return (images * 255).round().clip(0, 255).astype(np.uint8)


def _sampler(parts: Parts, how: Sampling) -> SchedulerMixin:
    if how.scheduler == "pndm" and parts.scheduler.config.rescale_betas_zero_snr:
        raise InputError("model.sampling.scheduler: pndm cannot start where the signal is zero. Choose another.")
    scheduler_class, options = _SCHEDULERS[how.scheduler]
    return scheduler_class.from_config(parts.scheduler.config, **options)
