"""The DreamBooth loss. Pure torch, float32 throughout."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


def add_noise(alphas_cumprod: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Noisy latents √ᾱ_t · x + √(1 − ᾱ_t) · ε (Ho et al. 2020, eq. 4), in float32.

    Half precision would leave 192 distinct noise levels of 1,000.

    Args:
        alphas_cumprod: ᾱ of the noise schedule, `[T]`, float32.
        latents: x, `[B, C, h, w]`.
        noise: ε, the same shape.
        timesteps: int64 `[B]`, each in `[0, T)`.

    Returns:
        float32 `[B, C, h, w]`.
    """
    signal, sigma = _signal_and_sigma(alphas_cumprod, timesteps)
    return signal * latents.float() + sigma * noise.float()


def target(kind: PredictionType, alphas_cumprod: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should predict: ε, or v = √ᾱ_t · ε − √(1 − ᾱ_t) · x (Salimans & Ho 2022, appendix D).

    Args and shapes are those of `add_noise`.
    """
    if kind == "epsilon":
        return noise.float()
    signal, sigma = _signal_and_sigma(alphas_cumprod, timesteps)
    return signal * noise.float() - sigma * latents.float()


def snr_weights(kind: PredictionType, alphas_cumprod: Tensor, timesteps: Tensor, gamma: float) -> Tensor:
    """Min-SNR-γ loss weights (Hang et al. 2023, sec. 3.4), with SNR = ᾱ_t / (1 − ᾱ_t).

    min(SNR, γ) / SNR for ε-prediction, min(SNR, γ) / (SNR + 1) for v-prediction: both weigh the implied error of the
    clean latents by min(SNR, γ), so that nearly clean latents, which teach little of an image's layout, count less.

    Args:
        kind: what the UNet predicts.
        alphas_cumprod: ᾱ of the noise schedule, `[T]`, float32.
        timesteps: int64 `[B]`, each in `[0, T)`.
        gamma: truncation; 5 in the paper.

    Returns:
        float32 `[B]`.
    """
    level = alphas_cumprod.to(torch.float32)[timesteps]
    snr = level / (1 - level)
    return snr.clamp(max=gamma) / (snr if kind == "epsilon" else snr + 1)


def dreambooth_loss(
    prediction: Tensor, wanted: Tensor, prior: Tensor, prior_loss_weight: float, weights: Tensor | None = None
) -> Tensor:
    """Mean squared error of the instances plus λ times that of the class images (Ruiz et al. 2023, eq. 2).

    Args:
        prediction: the UNet's output, `[B, C, h, w]`.
        wanted: what it should be, the same shape.
        prior: bool `[B]`, true for class images. Either half may be empty.
        prior_loss_weight: λ.
        weights: of each sample's error, instances and class images alike, `[B]`; 1 if not given.

    Returns:
        float32 scalar.
    """
    errors = F.mse_loss(prediction.float(), wanted.float(), reduction="none").mean(dim=(1, 2, 3))
    if weights is not None:
        errors = errors * weights
    # Weighted sums and not a selection by mask, which would make the device wait for the host.
    share = prior.float()
    instance = (errors * (1 - share)).sum() / (1 - share).sum().clamp(min=1)
    preserved = (errors * share).sum() / share.sum().clamp(min=1)
    return instance + prior_loss_weight * preserved


def _signal_and_sigma(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    level = alphas_cumprod.to(torch.float32)[timesteps].reshape(-1, 1, 1, 1)
    return level.sqrt(), (1 - level).sqrt()
