"""The LightningModule that trains a pipeline's autoencoder from scratch, for bases that need no download."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from dermsynth.checkpoints import ScheduleCallable, check_kind, optimizer_config
from dermsynth.diffusion.parts import load_parts, save_pipeline

KIND = "autoencoder"


class Autoencoder(LightningModule):
    """Trains the `vae` of a pipeline on images: absolute error, edges, and a little pull to a normal latent.

    Args:
        base: hub id or folder of the pipeline.
        edge_weight: of the error of horizontal and vertical differences, at full and half size, which a plain
            absolute error leaves blurred.
        kl_weight: of the Kullback–Leibler divergence of the latents from a standard normal (Kingma & Welling 2014);
            1e-6 in latent diffusion (Rombach et al. 2022).
        optimizer: what updates the weights.
        lr_scheduler: stepped after every batch.
    """

    def __init__(
        self,
        base: str,
        edge_weight: float = 1.0,
        kl_weight: float = 1e-6,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: ScheduleCallable | None = None,
    ) -> None:
        super().__init__()
        self.parts = load_parts(base)
        self.vae = self.parts.vae.train()
        self.edge_weight, self.kl_weight = edge_weight, kl_weight
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        # The latents' standard deviation, measured on the validation images: the pipeline's scaling factor.
        self.register_buffer("latent_std", torch.tensor(1 / self.vae.config.scaling_factor))
        self._moments: list[Tensor] = []
        self.provenance: dict[str, Any] = self.parts.provenance

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch of images."""
        pixels = batch["pixel_values"]
        posterior = self.vae.encode(pixels).latent_dist
        decoded = self.vae.decode(posterior.sample()).sample.float()
        reconstruction = F.l1_loss(decoded, pixels)
        loss = reconstruction + self.edge_weight * edge_loss(decoded, pixels) + self.kl_weight * posterior.kl().mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(pixels))
        self.log("train/reconstruction", reconstruction, batch_size=len(pixels))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the peak signal-to-noise ratio in dB and collect the latents' second moment."""
        pixels = batch["pixel_values"]
        latents = self.vae.encode(pixels).latent_dist.mode().float()
        decoded = self.vae.decode(latents).sample.float().clamp(-1, 1)
        error = F.mse_loss(decoded, pixels, reduction="none").mean(dim=(1, 2, 3))
        # The range [-1, 1] is 2 wide, so the peak's square is 4.
        psnr = (10 * torch.log10(4 / error)).mean()
        self.log("val/psnr", psnr, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=len(pixels))
        self._moments.append(torch.stack([latents.sum(), latents.square().sum(), latents.new_tensor(latents.numel())]))

    def on_validation_epoch_end(self) -> None:
        """Set the scaling factor so that scaled latents have unit variance (Rombach et al. 2022, appendix G)."""
        if self._moments:
            moments: Any = self.all_gather(torch.stack(self._moments).sum(dim=0))
            total = moments.reshape(-1, 3).sum(dim=0)
            self.latent_std = (total[1] / total[2] - (total[0] / total[2]).square()).sqrt()
            self._moments.clear()

    def configure_optimizers(self) -> Any:
        """The optimizer over the autoencoder, its schedule stepped per batch."""
        return optimizer_config(self.optimizer(self.vae.parameters()), self.lr_scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `export` needs."""
        checkpoint["dermsynth"] = {
            "kind": KIND,
            "base": self.parts.base,
            "data": getattr(self.trainer.datamodule, "provenance", {}),  # type: ignore[attr-defined]
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model."""
        check_kind(checkpoint, KIND)
        self.provenance = checkpoint["dermsynth"]["data"]

    def export(self, out: Path, format: str) -> None:
        """Write the pipeline with the trained autoencoder and its scaling factor."""
        self.vae.register_to_config(scaling_factor=1 / float(self.latent_std))
        save_pipeline(self.parts, out, self.provenance)


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
