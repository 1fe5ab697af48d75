"""The autoencoder and text encoder in front of the UNet: on disk until a batch or an image needs them.

They are no submodules of the LightningModule unless they are trained. So neither distributed training nor weight
averaging copies them, and training from cached moments and embeddings never loads them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from dermsynth.contracts import Batch
from dermsynth.diffusion.parts import Parts, file_sha256, part_config, refuse_broken_latents
from dermsynth.diffusion.speed import to_device
from dermsynth.errors import InputError

# What a configuration also says: of the library that wrote it, and of how the weights are stored.
_NOT_OF_THE_MODEL = ("architectures", "transformers_version", "dtype", "torch_dtype")


class BaseEncoders:
    """What a step and the latent cache ask of the two.

    Args:
        parts: of the pipeline.
        train_text_encoder: the text encoder changes, and is a submodule of whoever trains it.
    """

    def __init__(self, parts: Parts, train_text_encoder: bool) -> None:
        self._parts, self._train_text_encoder = parts, train_text_encoder
        self._vae_works = False

    @cached_property
    def vae_sha256(self) -> str:
        """Hash of the autoencoder's weights and configuration, read from its files."""
        return self._of_files("vae")

    @cached_property
    def text_sha256(self) -> str | None:
        """The same of the text encoder, with the tokenizer; None if the text encoder is trained."""
        if self._train_text_encoder:
            return None
        tokenizer = self._parts.tokenizer
        words = json.loads(tokenizer.backend_tokenizer.to_str())
        for last_used in ("truncation", "padding"):
            del words[last_used]
        words |= {"special": tokenizer.special_tokens_map, "length": tokenizer.model_max_length}
        return _sha256(self._of_files("text_encoder"), words)

    def moments(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Mean and log-variance of the latents of images.

        Args:
            pixels: in [-1, 1], `[B, 3, H, W]`, on the device that shall compute.
            dtype: of the autoencoder's weights.

        Returns:
            `[B, 2C, h, w]`.

        Raises:
            InputError: the autoencoder overflows in this type.
        """
        vae = self._at("vae", pixels.device, dtype)
        with torch.no_grad():
            moments = vae.encode(pixels.to(dtype)).latent_dist.parameters
        if not self._vae_works:  # looked at once, as it makes the device wait
            refuse_broken_latents(moments, self._parts.base)
            self._vae_works = True
        return moments

    def embeddings(self, prompts: Sequence[str], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """Embeddings of B prompts, `[B, L, D]`, computed on a device with weights of that type."""
        text_encoder = self._at("text_encoder", device, dtype)
        return text_encoder(to_device(self._parts.tokenize(prompts), device))[0]

    def refuse_cut(self, prompts: Iterable[str], key: str) -> None:
        """Refuse prompts that the text encoder would read in part, which may leave out the token or the class.

        Args:
            prompts: in full, with nothing left to fill in.
            key: where they are given.

        Raises:
            InputError: naming the key, the prompt and what is left of it.
        """
        # Not that of the loaded part: training from a cache never loads it.
        length = part_config(self._parts.base, "text_encoder").get("max_position_embeddings", 77)
        for prompt in prompts:
            words = self._parts.tokenizer(prompt).input_ids
            if len(words) > length:
                kept = self._parts.tokenizer.decode(words[: length - 1], skip_special_tokens=True)
                raise InputError(
                    f"{key}: {prompt[:60]!r}… is {len(words)} tokens, with start and end, and the text encoder reads "
                    f"{length}: all after {kept[-30:]!r} would be lost, as {{lesion}} or {{token}} may be. Shorten it."
                )

    def make_ready(self, device: torch.device, dtype: torch.dtype) -> None:
        """Load both, for `Parts.pipeline`."""
        for name in ("vae", "text_encoder"):
            self._at(name, device, dtype)

    def release(self) -> None:
        """Let go of what is frozen; it is loaded again when it is needed again."""
        for name in ("vae",) if self._train_text_encoder else ("vae", "text_encoder"):
            vars(self._parts).pop(name, None)

    def _of_files(self, name: str) -> str:
        config = part_config(self._parts.base, name)
        said = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL and key[0] != "_"}
        return _sha256(file_sha256(self._parts.base, name), said)

    def _at(self, name: str, device: torch.device, dtype: torch.dtype) -> Any:
        loaded = name in vars(self._parts)
        part = self._parts.vae if name == "vae" else self._parts.text_encoder
        if not loaded:
            part.requires_grad_(False)
        if part.device != device or part.dtype != dtype:
            # What was moved in inference mode could not be used in training.
            with torch.inference_mode(False):
                part.to(device, dtype)
        return part


def draw_latents(moments: Tensor, noise: Tensor, scaling_factor: float) -> Tensor:
    """A sample of the latents, in float32 and in the UNet's scale: (μ + σ · ε) · s (Rombach et al. 2022).

    Args:
        moments: μ and log σ², `[B, 2C, h, w]`, of any type.
        noise: ε, `[B, C, h, w]`.
        scaling_factor: s, which gives latents unit variance.
    """
    posterior = DiagonalGaussianDistribution(moments.float())
    return (posterior.mean + posterior.std * noise) * scaling_factor


def drop_prompts(batch: Batch, kept: Tensor) -> Batch:
    """A batch in which some prompts, and their embeddings if it holds any, are those of the empty prompt.

    Args:
        batch: as the data module makes it.
        kept: bool `[B]`, false where the prompt is dropped.
    """
    emptied: Batch = {
        "prompt": [prompt if keep else "" for prompt, keep in zip(batch["prompt"], kept.tolist(), strict=True)]
    }
    if "prompt_embeds" in batch:
        keep = to_device(kept, batch["prompt_embeds"].device)[:, None, None]
        emptied["prompt_embeds"] = torch.where(keep, batch["prompt_embeds"], batch["empty_embeds"])
    return {**batch, **emptied}


def _sha256(weights: str, rest: object) -> str:
    return hashlib.sha256(f"{weights} {json.dumps(rest, sort_keys=True, default=str)}".encode()).hexdigest()
