"""What the DreamBooth loss is. Torch and the noise schedule of diffusers, float32 throughout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor

from dermsynth.errors import InputError

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Objective:
    """What the loss is; by default DreamBooth's own (Ruiz et al. 2023).

    Args:
        prediction_type: what the UNet predicts; the base's own if not given.
        snr_gamma: weigh each sample's loss by its noise level, min-SNR-γ (Hang et al. 2023); 5 is usual.
        debiased: weigh it by 1 / √SNR instead (Yu et al. 2023).
        noise_offset: of one more random number for each latent channel, added to its noise, so that the brightness of
            an image is learned too (Guttenberg 2023, "Diffusion with offset noise"); 0.1 is usual.
        zero_terminal_snr: rescale the noise schedule so that its last step is noise alone, and sample from that step
            (Lin et al. 2024); needs v-prediction.
        huber_delta: errors far above it count by their size and not by their square, so that few odd images decide
            less (Khrapov et al. 2024); 0.1 is usual. Squared errors if not given.
        caption_dropout: share of training prompts that are emptied, which classifier-free guidance builds on; 0.1 to
            train a base (Ho & Salimans 2022), 0 in DreamBooth.
        prior_loss_weight: of the class images' loss: one number, or one for each of `data.classes`, by name.

    Raises:
        InputError: a number is out of its range, or two options contradict each other.
    """

    prediction_type: PredictionType | None = None
    snr_gamma: float | None = None
    debiased: bool = False
    noise_offset: float = 0.0
    zero_terminal_snr: bool = False
    huber_delta: float | None = None
    caption_dropout: float = 0.0
    prior_loss_weight: float | dict[str, float] = 1.0

    def __post_init__(self) -> None:
        if self.snr_gamma is not None and not 0 < self.snr_gamma < math.inf:
            raise _wrong("snr_gamma", f"{self.snr_gamma} must be above 0; 5 is usual.")
        if self.huber_delta is not None and not 0 < self.huber_delta < math.inf:
            raise _wrong("huber_delta", f"{self.huber_delta} must be above 0; 0.1 is usual.")
        if not 0 <= self.noise_offset < math.inf:
            raise _wrong("noise_offset", f"{self.noise_offset} must be at least 0; 0.1 is usual.")
        if not 0 <= self.caption_dropout <= 1:
            raise _wrong("caption_dropout", f"{self.caption_dropout} is a share of the prompts, from 0 to 1.")
        if self.snr_gamma is not None and self.debiased:
            raise _wrong("debiased", "it is another weight in place of snr_gamma's; give one of them.")
        prior = self.prior_loss_weight
        if not all(0 <= weight < math.inf for weight in (prior.values() if isinstance(prior, dict) else [prior])):
            raise _wrong("prior_loss_weight", f"{prior}: a weight must be at least 0.")

    def schedule(self, base: DDPMScheduler) -> DDPMScheduler:
        """The base's noise schedule, with what this objective changes of it.

        Raises:
            InputError: the prediction or the weights do not go with that schedule.
        """
        changes: dict[str, object] = {}
        if self.prediction_type:
            changes["prediction_type"] = self.prediction_type
        if self.zero_terminal_snr:
            # Leading or even spacing would leave the last step, which is new, out of sampling.
            changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        scheduler = DDPMScheduler.from_config(base.config, **changes) if changes else base
        predicts = scheduler.config.prediction_type
        if predicts not in ("epsilon", "v_prediction"):
            raise InputError(
                f"model.base: its scheduler says prediction_type {predicts!r}; epsilon and v_prediction are supported."
            )
        if scheduler.config.rescale_betas_zero_snr:
            if predicts == "epsilon":
                raise _wrong(
                    "zero_terminal_snr",
                    "at the last step the noise that the model should predict is its own input. Add "
                    "--model.objective.prediction_type v_prediction.",
                )
            if self.snr_gamma is not None or self.debiased:
                option = "debiased" if self.debiased else "snr_gamma"
                raise _wrong(option, "it gives the last step of a zero-terminal-SNR schedule no weight. Leave it out.")
        return scheduler

    def weights(self, kind: PredictionType, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor | None:
        """Of each sample's loss, float32 `[B]`; None if all are equal. Args are those of `snr_weights`."""
        if self.snr_gamma is not None:
            return snr_weights(kind, alphas_cumprod, timesteps, self.snr_gamma)
        return debiased_weights(kind, alphas_cumprod, timesteps) if self.debiased else None

    def prior_weights(self, classes: Sequence[str]) -> float | Tensor:
        """The weight of class images: one number, or float32 `[len(classes)]`.

        Raises:
            InputError: the classes named are not those of the data.
        """
        if not isinstance(self.prior_loss_weight, dict):
            return self.prior_loss_weight
        if set(self.prior_loss_weight) != set(classes):
            raise _wrong(
                "prior_loss_weight",
                f"it names the classes {', '.join(self.prior_loss_weight)}; data.classes are {', '.join(classes)}.",
            )
        return torch.tensor([self.prior_loss_weight[name] for name in classes])


def _wrong(option: str, what: str) -> InputError:
    return InputError(f"model.objective.{option}: {what}")


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


def offset_noise(noise: Tensor, channel_noise: Tensor, scale: float) -> Tensor:
    """ε + scale · ε_c, with ε_c the same at every place of a channel (Guttenberg 2023).

    Args:
        noise: ε, `[B, C, h, w]`.
        channel_noise: ε_c, `[B, C, 1, 1]`.
        scale: 0.1 in the source.
    """
    return noise + scale * channel_noise


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
    snr = _snr(alphas_cumprod, timesteps)
    return snr.clamp(max=gamma) / (snr if kind == "epsilon" else snr + 1)


def debiased_weights(kind: PredictionType, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Weights of the debiased estimation loss (Yu et al. 2023): 1 / √SNR for ε-prediction.

    That weighs the implied error of the clean latents, which is ε's divided by SNR, by √SNR. The paper has no
    v-prediction; the same weight of that error is √SNR / (SNR + 1) there, as v's error is it times SNR + 1. (Some
    trainers take 1 / (SNR + 1), which is another weight.)

    Args and shapes are those of `snr_weights`.
    """
    snr = _snr(alphas_cumprod, timesteps)
    return snr.rsqrt() if kind == "epsilon" else snr.sqrt() / (snr + 1)


def sample_errors(prediction: Tensor, wanted: Tensor, huber_delta: float | None = None) -> Tensor:
    """Mean error of each sample: squared, or 2δ (√(e² + δ²) − δ), the pseudo-Huber loss.

    The latter is e² where e is small and 2δ|e| where it is large (Charbonnier et al. 1997; for diffusion models Khrapov
    et al. 2024, here with the same δ at all steps and scaled so that small errors weigh as squared ones do).

    Args:
        prediction: the UNet's output, `[B, C, h, w]`.
        wanted: what it should be, the same shape.
        huber_delta: δ.

    Returns:
        float32 `[B]`.
    """
    if huber_delta is None:
        errors = F.mse_loss(prediction.float(), wanted.float(), reduction="none")
    else:
        size = ((prediction.float() - wanted.float()).square() + huber_delta**2).sqrt()
        errors = 2 * huber_delta * (size - huber_delta)
    return errors.mean(dim=(1, 2, 3))


def dreambooth_loss(errors: Tensor, prior: Tensor, prior_loss_weight: float | Tensor) -> Tensor:
    """Mean error of the instances plus λ times that of the class images (Ruiz et al. 2023, eq. 2).

    Args:
        errors: of each sample, weighted or not, float32 `[B]`.
        prior: bool `[B]`, true for class images. Either half may be empty.
        prior_loss_weight: λ, or one for each sample, `[B]`, which counts where `prior` is true.

    Returns:
        float32 scalar.
    """
    # Weighted sums and not a selection by mask, which would make the device wait for the host.
    share = prior.float()
    instance = (errors * (1 - share)).sum() / (1 - share).sum().clamp(min=1)
    if isinstance(prior_loss_weight, Tensor):
        errors, prior_loss_weight = errors * prior_loss_weight, 1.0
    preserved = (errors * share).sum() / share.sum().clamp(min=1)
    return instance + prior_loss_weight * preserved


def _snr(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    level = alphas_cumprod.to(torch.float32)[timesteps]
    return level / (1 - level)


def _signal_and_sigma(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    level = alphas_cumprod.to(torch.float32)[timesteps].reshape(-1, 1, 1, 1)
    return level.sqrt(), (1 - level).sqrt()
