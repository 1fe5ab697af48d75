"""Prompts and seeds to images. Pure torch and diffusers."""

import functools
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
from torch import Tensor

from dermsynth.diffusion.parts import Parts
from dermsynth.errors import InputError
from dermsynth.seeds import Purpose, entropy

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
            better than 7.5 for training classifiers (Sarıyıldız et al. 2023). Of `[low, high]`, each image draws one.
        scheduler: the sampler. `pndm` without its warm-up steps is PLMS.
        negative_prompt: what guidance leads away from.
    """

    steps: int = 25
    guidance_scale: float | tuple[float, float] = 7.5
    scheduler: SchedulerName = "dpmsolver++"
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MOST_STEPS:
            raise InputError(f"model.sampling.steps: {self.steps} must be from 1 to {_MOST_STEPS}.")
        low, high = self._range()
        if not 1 <= low <= high < math.inf:
            what = "be at least 1" if low == high or math.isnan(low) else "be two numbers from 1, the smaller one first"
            raise InputError(f"model.sampling.guidance_scale: {self.guidance_scale} must {what}.")

    @property
    def guided(self) -> bool:
        """Whether the model is also asked about the negative prompt."""
        return self._range()[1] > 1

    def guidance(self, seed: int) -> float:
        """The guidance scale of the image with this seed, of two decimals where it is drawn.

        Drawn from a stream of its own, so that it says nothing of the image's noise.
        """
        low, high = self._range()
        if low == high:
            return low
        drawn = low + (high - low) * np.random.default_rng(entropy(seed, Purpose.GUIDANCE)).random()
        return min(max(round(drawn, 2), low), high)

    def _range(self) -> tuple[float, float]:
        scale = self.guidance_scale
        return scale if isinstance(scale, tuple) else (scale, scale)


class PromptEmbeddings:
    """The text encoder's embeddings of prompts, each computed once, as long as its weights stay as they are.

    Args:
        parts: the model.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Of Stable Diffusion 1.5 one takes a quarter of a megabyte.
        self._of = functools.lru_cache(1024)(self._compute)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """The embeddings of B prompts, `[B, L, D]`, on the device and in the type of the text encoder."""
        return torch.cat([self._of(prompt) for prompt in prompts])

    def _compute(self, prompt: str) -> Tensor:
        encoder = self._parts.text_encoder
        # Alone, so that neither the device nor the rest of a batch decides how it is rounded.
        embedding: Tensor = encoder(self._parts.tokenize([prompt]).to(encoder.device))[0]
        return embedding.to(encoder.dtype)


def sample(
    parts: Parts,
    prompts: Sequence[str],
    seeds: Sequence[int],
    how: Sampling,
    black_if_nan: bool = False,
    embed: PromptEmbeddings | None = None,
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
        embed: what has embedded other prompts of the same weights.

    Returns:
        uint8 `[B, H, W, 3]`, as large as the UNet was made for.

    Raises:
        InputError: an image is NaN, unless it is to be black; or the sampler does not go with the noise schedule.
    """
    with torch.inference_mode():
        latents = _denoise(parts, prompts, seeds, how, embed or PromptEmbeddings(parts))
        decoded = parts.vae.decode(latents / parts.scaling_factor, return_dict=False)[0]
        images = (decoded * 0.5 + 0.5).clamp(0, 1).float()
        broken = ~images.isfinite().flatten(1).all(dim=1)
        # On the device, from which bytes come four times as fast as numbers.
        pixels = (images.nan_to_num() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    if lost := int(broken.sum()):  # they would silently become black
        if not black_if_nan:
            raise InputError(
                "model.base: its images are NaN. If its VAE is not made for half precision, give "
                "--trainer.precision bf16-mixed or 32-true; else its weights are broken."
            )
        warnings.warn(
            f"{lost} of {len(pixels)} sampled images are NaN and shown in black: training has diverged, or the "
            "VAE is not made for half precision.",
            stacklevel=2,
        )
        pixels[broken.cpu().numpy()] = 0
    return np.ascontiguousarray(pixels)


def _denoise(
    parts: Parts, prompts: Sequence[str], seeds: Sequence[int], how: Sampling, embed: PromptEmbeddings
) -> Tensor:
    """Latents `[B, C, h, w]` of prompts, in the UNet's scale."""
    unet, scheduler, guided = parts.unet, _sampler(parts, how), how.guided
    embeddings = embed(prompts)
    if guided:
        embeddings = torch.cat([embed([how.negative_prompt] * len(prompts)), embeddings])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    size = unet.config.sample_size
    shape = (unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
    noise = [torch.randn(shape, generator=one, dtype=embeddings.dtype) for one in generators]
    scheduler.set_timesteps(how.steps, device=unet.device)
    latents = torch.stack(noise).to(unet.device) * scheduler.init_noise_sigma
    # The only sampler here that draws noise in its steps.
    more = {"generator": generators} if how.scheduler == "euler_a" else {}
    scale: float | Tensor = how.guidance(seeds[0])
    if isinstance(how.guidance_scale, tuple):
        scale = torch.tensor([how.guidance(seed) for seed in seeds], device=unet.device).view(-1, 1, 1, 1)
    for timestep in scheduler.timesteps:
        noisy = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, timestep)
        prediction = unet(noisy, timestep, encoder_hidden_states=embeddings, return_dict=False)[0]
        if guided:
            away, towards = prediction.chunk(2)
            prediction = away + scale * (towards - away)
        latents = scheduler.step(prediction, timestep, latents, **more, return_dict=False)[0]
    return latents


def _sampler(parts: Parts, how: Sampling) -> SchedulerMixin:
    if how.scheduler == "pndm" and parts.scheduler.config.rescale_betas_zero_snr:
        raise InputError("model.sampling.scheduler: pndm cannot start where the signal is zero. Choose another.")
    scheduler_class, options = _SCHEDULERS[how.scheduler]
    return scheduler_class.from_config(parts.scheduler.config, **options)
