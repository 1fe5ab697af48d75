"""The LightningModule for text-to-image training: DreamBooth, and a tiny base from scratch."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import dermsynth.run.lean  # noqa: F401

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from dermsynth.contracts import Batch, Classed, GeneratedBatch, GenerationBatch, PromptedData
from dermsynth.diffusion.encoders import BaseEncoders, draw_latents, drop_prompts
from dermsynth.diffusion.held_out import HeldOutLoss, image_generator, image_timesteps
from dermsynth.diffusion.lora import LoRA, add_lora, merge_lora, save_kohya, save_lora
from dermsynth.diffusion.objective import Objective, add_noise, dreambooth_loss, offset_noise, sample_errors, target
from dermsynth.diffusion.parts import (
    base_sha256,
    default_sampler,
    load_parts,
    refuse_foreign_weights,
    save_pipeline,
)
from dermsynth.diffusion.sampling import PromptEmbeddings, Sampling, sample
from dermsynth.diffusion.speed import compile_blocks, shard, to_device, whole
from dermsynth.errors import InputError
from dermsynth.provenance import Provenance
from dermsynth.run.checkpoint_facts import CheckpointFacts, check_kind
from dermsynth.run.checkpoints import (
    Best,
    Reloadable,
    ScheduleCallable,
    check_weights,
    clip_gradients,
    datamodule_of,
    held_out_of,
    optimizer_config,
    provenance_of,
)
from dermsynth.run.ranks import mean_if_logged, told_by_first
from dermsynth.run.seams import attached_trainer
from dermsynth.seeds import Purpose, stream_seed

KIND = "dreambooth"


class DreamBooth(Reloadable):
    """Fine-tunes Stable Diffusion on images with a prompt each (Ruiz et al. 2023).

    With prior preservation the data module marks half of every batch as `prior`; without, it is plain text-to-image
    training, which is also how a base is trained from scratch. `predict` generates images.

    Args:
        base: hub id or folder of a Stable Diffusion pipeline.
        train_text_encoder: train it too.
        text_encoder_lr: its learning rate, if not the optimizer's; the schedule multiplies both.
        lora: train low-rank adapters of these dimensions instead of all weights.
        objective: what the loss is.
        gradient_checkpointing: recompute activations in the backward pass: less memory, a quarter more time.
        channels_last: keep the UNet's weights, which its images follow, in the memory order that is fastest for
            convolutions on a GPU.
        compile: fuse the operations of the UNet's blocks (`torch.compile`): faster steps, after a first one that takes
            minutes. Wants a GPU, and a C++ compiler.
        sampling: how images are generated.
        seed: of noise and timesteps, with epoch, batch and a sample's place in it.
        optimizer: what updates the weights.
        lr_scheduler: stepped after every optimizer step.
    """

    best: ClassVar = Best("val/loss_balanced", "min")

    def __init__(
        self,
        base: str,
        train_text_encoder: bool = False,
        text_encoder_lr: float | None = None,
        lora: LoRA | None = None,
        objective: Objective = Objective(),  # noqa: B008  (frozen)
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
        compile: bool = False,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        seed: int = 0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: ScheduleCallable | None = None,
    ) -> None:
        super().__init__()
        if text_encoder_lr is not None and not train_text_encoder:
            raise InputError("model.text_encoder_lr: it is not trained. Add --model.train_text_encoder true.")
        if text_encoder_lr is not None and not text_encoder_lr >= 0:
            raise InputError(f"model.text_encoder_lr: {text_encoder_lr} must be at least 0.")
        self.parts = load_parts(base)
        self.parts.scheduler = objective.schedule(self.parts.scheduler)
        if sampling.steps > (levels := len(self.parts.scheduler.alphas_cumprod)):
            raise InputError(f"model.sampling.steps: {sampling.steps} is more than the base's {levels} noise levels.")
        self.encoders = BaseEncoders(self.parts, train_text_encoder)
        self.unet = self.parts.unet
        self.lora, self.train_text_encoder = lora, train_text_encoder
        if train_text_encoder:
            self.text_encoder = self.parts.text_encoder.requires_grad_(True)
        if channels_last:
            # Before the adapters, whose weights DoRA takes views of.
            self.unet.to(memory_format=torch.channels_last)
        if lora:
            add_lora(self.parts, lora, text_encoder=train_text_encoder)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            if train_text_encoder:
                self.text_encoder.gradient_checkpointing_enable()
        self.compile_unet, self.channels_last = compile, channels_last
        self.trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        # The frozen weights are not in the checkpoint; names and state dict keys are the same for parameters.
        self.strict_loading = False
        self.objective, self.text_encoder_lr = objective, text_encoder_lr
        # One a class is known when the data has named its classes, at the start of training.
        self.prior_weights: float | Tensor = 1.0
        self.sampling, self.seed = sampling, seed
        self._base_hash: str | None = None
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self._evaluation = ExitStack()
        # While nothing is trained.
        self._prompt_embeddings: PromptEmbeddings | None = None
        # No buffer: half-precision training would round it to 192 noise levels.
        self.alphas_cumprod: Tensor = self.parts.scheduler.alphas_cumprod
        self.provenance: Provenance = self.parts.provenance

    @property
    def base(self) -> str:
        """The pipeline that it was made of: its hub id or folder."""
        return self.parts.base

    def configure_model(self) -> None:
        """Spread what is trained over GPUs, where the strategy is to (configs/overlays/fsdp.yaml).

        Raises:
            InputError: the strategy would split the layers themselves, or the weights' memory order cannot be split.
        """
        if self.device_mesh is None:
            return
        if self.device_mesh["tensor_parallel"].size() != 1:  # Lightning's default, and each would train by itself
            raise InputError(
                "trainer.strategy: give data_parallel_size the number of all devices, and tensor_parallel_size 1."
            )
        if self.channels_last:
            raise InputError(
                "model.channels_last: weights in that order cannot be spread over GPUs. Add "
                "--model.channels_last false."
            )
        for part in self._trained_parts():
            shard(part, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Refuse a base or checkpoint that saw other patients; set what is trained, and only that, to training mode."""
        data, held_out = provenance_of(self.trainer), held_out_of(self.trainer)
        refuse_foreign_weights(f"model.base: {self.parts.base}", self.parts.provenance, data, held_out)
        refuse_foreign_weights("the checkpoint", self.provenance, data, held_out)
        self.check_prompts()
        weights = self.objective.prior_weights(data.get("classes", []))
        self.prior_weights = weights.to(self.device) if isinstance(weights, Tensor) else weights
        self.unet.train()
        if self.train_text_encoder:
            self.text_encoder.train()
        if self.compile_unet:
            compile_blocks(self.unet)
        if self.trainer.checkpoint_callbacks:
            self._base_sha256()  # now, and not in the middle of training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Denoising loss of one batch at random noise and timesteps."""
        draws = self._draws(self.current_epoch, batch_idx, len(batch["prompt"]))
        if self.objective.caption_dropout:
            numbers = torch.stack([torch.rand((), generator=one, dtype=torch.float32) for one in draws])
            batch = drop_prompts(batch, numbers >= self.objective.caption_dropout)
        prediction, wanted, timesteps = self._denoise(batch, draws)
        errors = sample_errors(prediction, wanted, self.objective.huber_delta)
        kind = self.parts.scheduler.config.prediction_type
        weights = self.objective.weights(kind, self.alphas_cumprod, timesteps)
        prior_weights = self.prior_weights
        if isinstance(prior_weights, Tensor):
            prior_weights = prior_weights[batch["label"]]
        loss = dreambooth_loss(errors if weights is None else errors * weights, batch["prior"], prior_weights)
        # Not on the progress bar, which would wait for the number at each step.
        self.log("train/loss", mean_if_logged(loss.detach(), attached_trainer(self)), batch_size=len(batch["prompt"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the held-out loss of each class at zero."""
        self._evaluation.enter_context(self.whole())
        data = datamodule_of(self.trainer)
        assert isinstance(data, Classed)
        self._held_out: HeldOutLoss = HeldOutLoss(data.classes, self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the held-out loss of each image."""
        self._held_out.add(self.held_out_losses(batch), batch["label"])

    def held_out_losses(self, batch: Batch) -> Tensor:
        """Denoising loss of each image at timesteps and noise of its own, float32 `[B]`; see `held_out`."""
        draws = [image_generator(image_id) for image_id in batch["image_id"]]
        latents, embeddings = self._latents(batch, draws), self._embeddings(batch)
        errors = []
        for timesteps in to_device(image_timesteps(len(self.alphas_cumprod), draws), self.device):
            prediction, wanted = self._predict(latents, self._randn_like(latents, draws), timesteps, embeddings)
            errors.append(sample_errors(prediction, wanted))
        return torch.stack(errors).mean(dim=0)

    def on_validation_epoch_end(self) -> None:
        """Log the held-out losses over all ranks: `val/loss`, `val/loss_balanced` and one per class."""
        self._evaluation.close()
        losses = self._held_out.means(self.trainer.strategy.reduce)
        for name, value in losses.items():
            self.log(f"val/{name}", value, prog_bar=name == "loss")

    def on_predict_start(self) -> None:
        """Refuse prompts with a token that this model was not taught."""
        data = datamodule_of(self.trainer)
        token = data.token if isinstance(data, PromptedData) else ""
        if token and self.provenance.get("token", "") != token:
            raise InputError(
                f"data.prompt: it asks for the token {token!r}, which was not taught to the model that is loaded. Give "
                "the checkpoint of a DreamBooth run as --ckpt_path, or a prompt without {token}."
            )
        self.check_prompts()
        self._evaluation.enter_context(self.whole())
        self._prompt_embeddings = PromptEmbeddings(self.parts)

    def predict_step(self, batch: GenerationBatch, batch_idx: int) -> GeneratedBatch:
        """Generate one image for each prompt and seed of the batch; adds `images`, uint8 `[B, H, W, 3]`."""
        return {**batch, "images": self.sample(batch["prompt"], batch["seed"].tolist())}

    def on_predict_end(self) -> None:
        """Let go of what `on_predict_start` has collected."""
        self._evaluation.close()
        self._prompt_embeddings = None

    def check_prompts(self, prompts: Iterable[str] | None = None, key: str = "data") -> None:
        """Refuse prompts that the text encoder would cut, by default the data's; see `BaseEncoders.refuse_cut`."""
        data = datamodule_of(self.trainer)
        of_data: Mapping[str, Sequence[str]] = data.prompts if isinstance(data, PromptedData) else {}
        for name, some in of_data.items() if prompts is None else [(key, prompts)]:
            self.encoders.refuse_cut(some, name)

    def whole(self) -> AbstractContextManager[None]:
        """For `sample`, where processes draw in different numbers and weights may be spread over them.

        All processes enter it, also those that draw nothing.
        """
        return whole(*self._trained_parts())

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], black_if_nan: bool = False) -> NDArray[np.uint8]:
        """Images of the current weights, uint8 `[B, H, W, 3]`; see `sampling.sample`."""
        self.encoders.make_ready(self.device, self.unet.dtype)
        return sample(self.parts, prompts, seeds, self.sampling, black_if_nan, self._prompt_embeddings)

    def configure_optimizers(self) -> Any:
        """The optimizer over everything trained, its schedule stepped per optimizer step."""
        trained = [p for p in self.parameters() if p.requires_grad]
        if self.text_encoder_lr is None:
            return optimizer_config(self, self.optimizer, trained, self.lr_scheduler)
        groups = [
            {"params": [p for p in self.unet.parameters() if p.requires_grad], "name": "unet"},
            {
                "params": [p for p in self.text_encoder.parameters() if p.requires_grad],
                "name": "text_encoder",
                "lr": self.text_encoder_lr,
            },
        ]
        return optimizer_config(self, self.optimizer, groups, self.lr_scheduler)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says, also under a fused optimizer."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen parts out, naming them by base and hash, and say what the model was fitted on."""
        # `current_model_state` is where weight averaging keeps the weights that are being trained.
        for key in ("state_dict", "current_model_state"):
            if key in checkpoint:
                # Where weights are spread over ranks, the first one alone has them whole.
                checkpoint[key] = {name: checkpoint[key][name] for name in self.trained if checkpoint[key]}
        self._facts(provenance_of(self.trainer)).into(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model or of another base; remember what it was fitted on."""
        own_facts = self._facts({})
        same = ("train_text_encoder", "prediction_type", "zero_terminal_snr", "lora")
        facts = check_kind(checkpoint, KIND, **{name: vars(own_facts)[name] for name in same})
        # The same base may lie elsewhere, so its weights decide and not its name.
        if facts.base_sha256 != own_facts.base_sha256:
            raise InputError(
                f"the checkpoint was made on another base, {facts.base} ({str(facts.base_sha256)[:12]}), than "
                f"model.base {self.base} ({str(own_facts.base_sha256)[:12]}): its weights differ."
            )
        # A strategy that spreads the weights loads them by itself, and shows the rest alone.
        if "state_dict" in checkpoint:
            own = self.state_dict()
            check_weights(checkpoint["state_dict"], {name: own[name] for name in self.trained})
        self.provenance = {"base_model": self.base, **facts.provenance}

    def export(self, out: Path, format: str, name: str = "lora") -> None:
        """Write the trained pipeline (`diffusers`, adapters merged), or the adapters alone (`lora`, `kohya`).

        Programs that read kohya's files show them by their name.
        """
        if format == "diffusers":
            merge_lora(self.parts)
            save_pipeline(self.parts, out, self.provenance)
            return
        if not self.lora:
            raise InputError(f"--format {format}: the model was trained without `lora`: there are no LoRA adapters.")
        if format == "kohya":
            save_kohya(self.parts, out / f"{name}.safetensors", self.provenance.get("token", ""))
        else:
            save_lora(self.parts, out)
        if self.objective.prediction_type or self.objective.zero_terminal_snr:
            # The adapters' base may come with another schedule, on which they would give noise.
            default_sampler(self.parts).save_pretrained(out / "scheduler")

    def _trained_parts(self) -> list[nn.Module]:
        return [self.unet, self.text_encoder] if self.train_text_encoder else [self.unet]

    def _facts(self, provenance: Provenance) -> CheckpointFacts:
        schedule = self.parts.scheduler.config
        return CheckpointFacts(
            KIND,
            provenance,
            base=self.base,
            base_sha256=self._base_sha256(),
            train_text_encoder=self.train_text_encoder,
            prediction_type=schedule.prediction_type,
            zero_terminal_snr=schedule.rescale_betas_zero_snr,
            lora={**asdict(self.lora), "targets": list(self.lora.targets)} if self.lora else None,
        )

    def _base_sha256(self) -> str:
        """The base's hash, which the first process reads gigabytes for: once, and all processes must ask for it."""
        if self._base_hash is None:
            self._base_hash = told_by_first(lambda: base_sha256(self.parts.base), attached_trainer(self))
        return self._base_hash

    def _denoise(self, batch: Batch, draws: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """The UNet's output, what it should be, and the timesteps, at random noise."""
        # Random numbers are made on the CPU in the reference's order: latents, noise, its offset, timesteps.
        latents = self._latents(batch, draws)
        noise = self._randn_like(latents, draws)
        if self.objective.noise_offset:
            channel_noise = self._randn_like(latents[:, :, :1, :1], draws)
            noise = offset_noise(noise, channel_noise, self.objective.noise_offset)
        timesteps = torch.stack([torch.randint(len(self.alphas_cumprod), (), generator=one) for one in draws])
        timesteps = to_device(timesteps, self.device)
        return *self._predict(latents, noise, timesteps, self._embeddings(batch)), timesteps

    def _latents(self, batch: Batch, draws: Sequence[torch.Generator]) -> Tensor:
        """Scaled latents, sampled from the VAE's distribution; float32 `[B, C, h, w]`.

        Under `bf16-true` Lightning rounds whatever a batch holds, cached moments too, to bfloat16, the type in which
        the VAE computes them without a cache.
        """
        moments = batch.get("moments")
        if moments is None:
            moments = self.encoders.moments(batch["pixel_values"], self.unet.dtype)
        noise = self._randn_like(moments.chunk(2, dim=1)[0], draws)
        return draw_latents(moments, noise, self.parts.scaling_factor)

    def _embeddings(self, batch: Batch) -> Tensor:
        embeddings = batch.get("prompt_embeds")
        if embeddings is None:
            embeddings = self.encoders.embeddings(batch["prompt"], self.device, self.unet.dtype)
        return embeddings.to(self.unet.dtype)

    def _predict(self, latents: Tensor, noise: Tensor, timesteps: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """The UNet's output for noisy latents, and what it should be."""
        alphas_cumprod = self.alphas_cumprod = self.alphas_cumprod.to(self.device)
        noisy = add_noise(alphas_cumprod, latents, noise, timesteps)
        prediction = self.unet(noisy.to(self.unet.dtype), timesteps, embeddings).sample
        kind = self.parts.scheduler.config.prediction_type
        return prediction, target(kind, alphas_cumprod, latents, noise, timesteps)

    def _randn_like(self, like: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """Noise of each sample from its own generator; float32, whatever type Lightning makes the default."""
        noise = [torch.randn(like.shape[1:], generator=one, dtype=torch.float32) for one in draws]
        return to_device(torch.stack(noise), like.device)

    def _draws(self, epoch: int, batch: int, count: int) -> list[torch.Generator]:
        """The random numbers of a training batch, those of each sample from a generator of its own.

        They depend on the sample's place among those of all ranks, so that a batch trains alike however many share it.
        """
        # Own generators: after seed_everything the global one draws the same numbers on every rank.
        places = range(self.global_rank * count, (self.global_rank + 1) * count)
        seeds = (stream_seed(self.seed, Purpose.NOISE, place, batch, epoch) for place in places)
        return [torch.Generator().manual_seed(seed) for seed in seeds]
