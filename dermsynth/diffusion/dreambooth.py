"""The LightningModule for text-to-image training: DreamBooth, and a tiny base from scratch."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from numpy.typing import NDArray
from torch import Tensor

from dermsynth.checkpoints import ScheduleCallable, check_kind, optimizer_config, provenance_of
from dermsynth.diffusion import objective
from dermsynth.diffusion.held_out import HeldOutLoss, image_generator, image_timesteps
from dermsynth.diffusion.lora import LoRA, add_lora, merge_lora, save_lora
from dermsynth.diffusion.objective import PredictionType
from dermsynth.diffusion.parts import load_parts, refuse_foreign_weights, save_pipeline, tensors_sha256
from dermsynth.diffusion.sampling import Sampling, draw, sampler
from dermsynth.errors import InputError

KIND = "dreambooth"
# What a stream of random numbers is for, so that no two streams coincide.
_TRAIN = 0
# One generator for a batch, or one for each of its images.
Draws = torch.Generator | Sequence[torch.Generator]


class DreamBooth(LightningModule):
    """Fine-tunes Stable Diffusion on images with a prompt each (Ruiz et al. 2023).

    With prior preservation the data module marks half of every batch as `prior`; without, it is plain text-to-image
    training, which is also how a base is trained from scratch. `predict` generates images.

    Args:
        base: hub id or folder of a Stable Diffusion pipeline.
        train_text_encoder: train it too.
        lora: train low-rank adapters of these dimensions instead of all weights.
        prior_loss_weight: of the class images' loss.
        snr_gamma: weigh each sample's loss by its noise level, min-SNR-γ (Hang et al. 2023); 5 is usual.
        prediction_type: what the UNet predicts; the base's own if not given.
        gradient_checkpointing: recompute activations in the backward pass: less memory, a quarter more time.
        caption_dropout: share of training prompts that are emptied, which classifier-free guidance builds on; 0.1 to
            train a base (Ho & Salimans 2022), 0 in DreamBooth.
        sampling: how images are generated.
        seed: of noise and timesteps, with epoch, batch and rank.
        optimizer: what updates the weights.
        lr_scheduler: stepped after every optimizer step.
    """

    def __init__(
        self,
        base: str,
        train_text_encoder: bool = False,
        lora: LoRA | None = None,
        prior_loss_weight: float = 1.0,
        snr_gamma: float | None = None,
        prediction_type: PredictionType | None = None,
        gradient_checkpointing: bool = False,
        caption_dropout: float = 0.0,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        seed: int = 0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: ScheduleCallable | None = None,
    ) -> None:
        super().__init__()
        if snr_gamma is not None and snr_gamma <= 0:
            raise InputError(f"model.snr_gamma: {snr_gamma} must be above 0; 5 is usual.")
        self.parts = load_parts(base)
        if prediction_type:
            self.parts.scheduler.register_to_config(prediction_type=prediction_type)
        self.unet, self.vae, self.text_encoder = self.parts.unet, self.parts.vae, self.parts.text_encoder
        self.lora, self.train_text_encoder = lora, train_text_encoder
        self.vae.requires_grad_(False)
        self.text_encoder.requires_grad_(train_text_encoder)
        if lora:
            add_lora(self.parts, lora, text_encoder=train_text_encoder)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            if train_text_encoder:
                self.text_encoder.gradient_checkpointing_enable()
        self.trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        # The frozen weights are not in the checkpoint; names and state dict keys are the same for parameters.
        self.strict_loading = False
        self.prior_loss_weight, self.snr_gamma, self.caption_dropout = prior_loss_weight, snr_gamma, caption_dropout
        self.sampling, self.seed = sampling, seed
        #: Made when something is first sampled, and kept: it shares the weights.
        self._pipeline: StableDiffusionPipeline | None = None
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        # No buffer: half-precision training would round it to 192 noise levels.
        self.alphas_cumprod: Tensor = self.parts.scheduler.alphas_cumprod
        self.provenance: dict[str, Any] = self.parts.provenance

    def setup(self, stage: str) -> None:
        """Note which base this is before its weights are trained, rounded, or replaced by a checkpoint's."""
        if stage == "fit":
            self._facts()

    def on_fit_start(self) -> None:
        """Refuse a base or checkpoint that saw other patients; set what is trained, and only that, to training mode."""
        data = provenance_of(self.trainer)
        refuse_foreign_weights(f"model.base: {self.parts.base}", self.parts.provenance, data)
        refuse_foreign_weights("the checkpoint", self.provenance, data)
        self.unet.train()
        self.text_encoder.train(self.train_text_encoder)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Denoising loss of one batch at random noise and timesteps."""
        generator = self._generator(_TRAIN, self.current_epoch, batch_idx)
        prompts = batch["prompt"]
        if self.caption_dropout:
            kept = torch.rand(len(prompts), generator=generator) >= self.caption_dropout
            prompts = [prompt if keep else "" for prompt, keep in zip(prompts, kept.tolist(), strict=True)]
        prediction, wanted, timesteps = self._denoise(batch["pixel_values"], prompts, generator)
        weights = None
        if self.snr_gamma is not None:
            kind, alphas_cumprod = self.parts.scheduler.config.prediction_type, self.alphas_cumprod.to(self.device)
            weights = objective.snr_weights(kind, alphas_cumprod, timesteps, self.snr_gamma)
        loss = objective.dreambooth_loss(prediction, wanted, batch["prior"], self.prior_loss_weight, weights)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(prompts))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the held-out loss of each class at zero."""
        self._held_out = HeldOutLoss(self.trainer.datamodule.classes, self.device)  # type: ignore[attr-defined]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Denoising loss of held-out images, each at timesteps and noise of its own; see `held_out`."""
        draws = [image_generator(image_id) for image_id in batch["image_id"]]
        latents = self._latents(batch["pixel_values"], draws)
        embeddings = self._embeddings(batch["prompt"])
        errors = []
        for timesteps in image_timesteps(len(self.alphas_cumprod), draws).to(self.device):
            noise = self._randn_like(latents, draws)
            prediction, wanted = self._predict(latents, noise, timesteps, embeddings)
            errors.append(F.mse_loss(prediction.float(), wanted, reduction="none").mean(dim=(1, 2, 3)))
        self._held_out.add(torch.stack(errors).mean(dim=0), batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Log the held-out losses over all ranks: `val/loss`, `val/loss_balanced` and one a class."""
        losses = self._held_out.means(self.trainer.strategy.reduce)
        for name, value in losses.items():
            self.log(f"val/{name}", value, prog_bar=name == "loss")

    def on_predict_start(self) -> None:
        """Refuse prompts with a token that this model was not taught."""
        token = getattr(self.trainer.datamodule, "token", "")  # type: ignore[attr-defined]
        if token and self.provenance.get("token", "") != token:
            raise InputError(
                f"data.prompt: it asks for the token {token!r}, which was not taught to the model that is loaded. Give "
                "the checkpoint of a DreamBooth run as --ckpt_path, or a prompt without {token}."
            )

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Generate one image for each prompt and seed of the batch; adds `images`, uint8 `[B, H, W, 3]`."""
        return {**batch, "images": self.sample(batch["prompt"], batch["seed"].tolist())}

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Images of the current weights, uint8 `[B, H, W, 3]`."""
        if self._pipeline is None:
            self._pipeline = sampler(self.parts, self.sampling)
        return draw(self._pipeline, prompts, seeds, self.sampling)

    def configure_optimizers(self) -> Any:
        """The optimizer over everything trained, its schedule stepped per optimizer step."""
        return optimizer_config(self.optimizer([p for p in self.parameters() if p.requires_grad]), self.lr_scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen parts out, naming them by base and hash, and say what the model was fitted on."""
        # `current_model_state` is where weight averaging keeps the weights that are being trained.
        for key in ("state_dict", "current_model_state"):
            if key in checkpoint:
                checkpoint[key] = {name: checkpoint[key][name] for name in self.trained}
        checkpoint["dermsynth"] = {
            "kind": KIND,
            **self._facts(),
            "data": provenance_of(self.trainer),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model or of another base; remember what it was fitted on."""
        facts = self._facts()
        # The same base may lie elsewhere, so its weights decide and not its name.
        base, weights = facts.pop("base"), facts.pop("base_sha256")
        check_kind(checkpoint, KIND, **facts)
        made_on = checkpoint["dermsynth"]
        if made_on["base_sha256"] != weights:
            raise InputError(
                f"the checkpoint was made on another base, {made_on['base']} ({made_on['base_sha256'][:12]}), than "
                f"model.base {base} ({weights[:12]}): its weights differ."
            )
        if set(checkpoint["state_dict"]) != set(self.trained):
            raise InputError("the checkpoint holds other weights than the configuration trains.")
        self.provenance = {"base_model": self.parts.base, **checkpoint["dermsynth"]["data"]}

    def export(self, out: Path, format: str) -> None:
        """Write the trained pipeline (`diffusers`, adapters merged), or the adapters alone (`lora`)."""
        if format == "lora":
            save_lora(self.parts, out)
        else:
            merge_lora(self.parts)
            save_pipeline(self.parts, out, self.provenance)

    def _facts(self) -> dict[str, Any]:
        if not hasattr(self, "_base_sha256"):
            # The base's own weights under their own names, whatever is trained.
            named = {n.replace(".base_layer", ""): p for n, p in self.named_parameters() if "lora_" not in n}
            self._base_sha256 = tensors_sha256(named)
        return {
            "base": self.parts.base,
            "base_sha256": self._base_sha256,
            "train_text_encoder": self.train_text_encoder,
            "prediction_type": self.parts.scheduler.config.prediction_type,
            "lora": {**asdict(self.lora), "targets": list(self.lora.targets)} if self.lora else None,
        }

    def _denoise(
        self, pixels: Tensor, prompts: Sequence[str], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The UNet's output, what it should be, and the timesteps, at random noise."""
        # Random numbers are drawn on the CPU in the reference's order: latents, noise, timesteps.
        latents = self._latents(pixels, generator)
        noise = self._randn_like(latents, generator)
        timesteps = torch.randint(len(self.alphas_cumprod), (len(latents),), generator=generator).to(self.device)
        return *self._predict(latents, noise, timesteps, self._embeddings(prompts)), timesteps

    def _latents(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Scaled latents, sampled from the VAE's distribution; float32 `[B, C, h, w]`."""
        with torch.no_grad():
            posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = posterior.mean + posterior.std * self._randn_like(posterior.mean, draws)
        return latents.float() * self.vae.config.scaling_factor

    def _embeddings(self, prompts: Sequence[str]) -> Tensor:
        return self.text_encoder(self.parts.tokenize(prompts).to(self.device))[0]

    def _predict(self, latents: Tensor, noise: Tensor, timesteps: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """The UNet's output for noisy latents, and what it should be."""
        alphas_cumprod = self.alphas_cumprod.to(self.device)
        noisy = objective.add_noise(alphas_cumprod, latents, noise, timesteps)
        prediction = self.unet(noisy.to(self.unet.dtype), timesteps, embeddings).sample
        kind = self.parts.scheduler.config.prediction_type
        return prediction, objective.target(kind, alphas_cumprod, latents, noise, timesteps)

    def _randn_like(self, like: Tensor, draws: Draws) -> Tensor:
        """Noise from one generator, or of each sample from its own."""
        if isinstance(draws, torch.Generator):
            return torch.randn(like.shape, generator=draws).to(like.device)
        return torch.stack([torch.randn(like.shape[1:], generator=one) for one in draws]).to(like.device)

    def _generator(self, purpose: int, epoch: int, batch: int) -> torch.Generator:
        # Own generators: after seed_everything the global one draws the same numbers on every rank.
        place = (self.seed, purpose, epoch, batch, self.global_rank)
        seed = np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1
        return torch.Generator().manual_seed(int(seed))
