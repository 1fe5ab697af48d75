"""The LightningModule that trains a pipeline's autoencoder from scratch, for bases that need no download."""

import math
from pathlib import Path
from typing import Any

import dermsynth.run.lean  # noqa: F401

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from dermsynth.diffusion.parts import load_parts, refuse_foreign_weights, save_pipeline
from dermsynth.errors import InputError
from dermsynth.run.checkpoints import (
    Reloadable,
    ScheduleCallable,
    check_kind,
    check_weights,
    held_out_of,
    optimizer_config,
    provenance_of,
)
from dermsynth.run.ranks import mean_if_logged
from dermsynth.run.seams import attached_trainer

KIND = "autoencoder"


class Autoencoder(Reloadable):
    """Trains the `vae` of a pipeline on images: absolute error, edges, and a little pull to a normal latent.

    Args:
        base: hub id or folder of the pipeline.
        edge_weight: of the error of horizontal and vertical differences, at full and half size, which a plain
            absolute error leaves blurred.
        kl_weight: of the Kullback–Leibler divergence of the latents from a standard normal (Kingma & Welling 2014);
            1e-6 in latent diffusion (Rombach et al. 2022).
        optimizer: what updates the weights.
        lr_scheduler: stepped after every batch.

    Raises:
        InputError: a weight is below 0.
    """

    latent_moments: Tensor

    def __init__(
        self,
        base: str,
        edge_weight: float = 1.0,
        kl_weight: float = 1e-6,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: ScheduleCallable | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("edge_weight", edge_weight), ("kl_weight", kl_weight)):
            if not 0 <= weight < math.inf:
                raise InputError(f"model.{name}: {weight} must be at least 0.")
        self.parts = load_parts(base)
        self.vae = self.parts.vae.train()
        self.edge_weight, self.kl_weight = edge_weight, kl_weight
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        # First and second moment of the training latents, for the pipeline's scaling factor.
        self.register_buffer("latent_moments", torch.tensor([0.0, self.vae.config.scaling_factor**-2]))
        self.provenance: dict[str, Any] = self.parts.provenance

    def on_fit_start(self) -> None:
        """Refuse a base or a checkpoint that saw other patients."""
        data, held_out = provenance_of(self.trainer), held_out_of(self.trainer)
        refuse_foreign_weights(f"model.base: {self.parts.base}", self.parts.provenance, data, held_out)
        refuse_foreign_weights("the checkpoint", self.provenance, data, held_out)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch of images."""
        pixels = batch["pixel_values"]
        posterior = self.vae.encode(pixels).latent_dist
        self._measure(posterior.mean.detach().float())
        decoded = self.vae.decode(posterior.sample()).sample.float()
        reconstruction = F.l1_loss(decoded, pixels)
        loss = reconstruction + self.edge_weight * edge_loss(decoded, pixels) + self.kl_weight * posterior.kl().mean()
        for name, value in (("loss", loss), ("reconstruction", reconstruction)):
            self.log(f"train/{name}", mean_if_logged(value.detach(), attached_trainer(self)), batch_size=len(pixels))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Log the peak signal-to-noise ratio in dB; return the `reconstruction`, float32 like the images."""
        pixels = batch["pixel_values"]
        latents = self.vae.encode(pixels).latent_dist.mode()
        decoded = self.vae.decode(latents).sample.float().clamp(-1, 1)
        error = F.mse_loss(decoded, pixels, reduction="none").mean(dim=(1, 2, 3))
        # The range [-1, 1] is 2 wide, so the peak's square is 4.
        psnr = (10 * torch.log10(4 / error)).mean()
        self.log("val/psnr", psnr, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=len(pixels))
        return {"reconstruction": decoded}

    def configure_optimizers(self) -> Any:
        """The optimizer over the autoencoder, its schedule stepped per batch."""
        return optimizer_config(self.optimizer, self.vae.parameters(), self.lr_scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `export` needs."""
        checkpoint["dermsynth"] = {
            "kind": KIND,
            "base": self.parts.base,
            "data": provenance_of(self.trainer),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model."""
        check_kind(checkpoint, KIND)
        check_weights(checkpoint.get("state_dict", {}), self.state_dict())
        self.provenance = checkpoint["dermsynth"].get("data", {})

    def export(self, out: Path, format: str) -> None:
        """Write the pipeline with the trained autoencoder.

        Its scaling factor gives the training latents unit variance (Rombach et al. 2022, appendix G).
        """
        mean, square = self.latent_moments.tolist()
        self.vae.register_to_config(scaling_factor=(square - mean**2) ** -0.5)
        save_pipeline(self.parts, out, self.provenance)

    def _measure(self, latents: Tensor) -> None:
        # Averaged over about the last twenty batches: earlier ones are of another encoder.
        moments = torch.stack([latents.mean(), latents.square().mean()]).to(self.latent_moments.dtype)
        self.latent_moments.lerp_(moments, 1.0 if self.global_step == 0 else 0.05)


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute error of horizontal and vertical differences, at full and at half size.

    Args:
        a: float32 `[B, C, H, W]`.
        b: the same shape.
    """
    difference = a - b
    total = difference.new_zeros(())
    for scale in (difference, F.avg_pool2d(difference, 2)):
        total = total + scale.diff(dim=-1).abs().mean() + scale.diff(dim=-2).abs().mean()
    return total
