"""The parts of a Stable Diffusion pipeline: loaded from a hub id or folder, built from configurations, saved.

The folder layout is that of `diffusers.StableDiffusionPipeline.save_pretrained`, so a base of ours and
`stable-diffusion-v1-5/stable-diffusion-v1-5` are read by the same lines.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dermsynth.diffusion.bases import ADVICE, INDEX, SUPPORTED, check_base
from dermsynth.errors import InputError
from dermsynth.files import read_json
from dermsynth.hub import first_line

PROVENANCE = "dermsynth.json"
_TINY_VOCABULARY = 768


@dataclass
class Parts:
    """A text-to-image model in its parts.

    Args:
        base: the hub id or folder it comes from.
        tokenizer: text -> ids.
        text_encoder: ids -> embeddings `[B, 77, D]`.
        vae: pixels in [-1, 1] `[B, 3, H, W]` <-> latents `[B, 4, h, w]`.
        unet: predicts noise or velocity from noisy latents.
        scheduler: the training noise schedule; samplers take their configuration from it.
        provenance: of the base, if it is one of ours: `train_split_sha256` and more; else empty.
    """

    base: str
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler
    provenance: dict[str, Any]

    def tokenize(self, prompts: Iterable[str]) -> Tensor:
        """Token ids, int64 `[B, 77]`, padded and cut to the text encoder's length."""
        length = self.text_encoder.config.max_position_embeddings
        encoded = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return encoded.input_ids

    def pipeline(self, scheduler: SchedulerMixin | None = None) -> StableDiffusionPipeline:
        """The parts as a diffusers pipeline, sharing their weights."""
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=scheduler or self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def load_parts(base: str) -> Parts:
    """Read a pipeline from a hub id or a folder, in float32.

    Raises:
        InputError: the folder or id does not exist, holds another kind of model, or a file of it is broken.
    """
    folder = check_base(base)
    safe = {"use_safetensors": True}  # a pickle could run code

    def read(part: str, load: Callable[..., Any], **options: Any) -> Any:
        with _broken_files_said(f"model.base: the {part} of {base}"):
            return load(str(folder or base), subfolder=part, **options)

    return Parts(
        base=base,
        tokenizer=read("tokenizer", CLIPTokenizer.from_pretrained),
        text_encoder=read("text_encoder", CLIPTextModel.from_pretrained, dtype=torch.float32, **safe),
        vae=read("vae", AutoencoderKL.from_pretrained, torch_dtype=torch.float32, **safe),
        unet=read("unet", UNet2DConditionModel.from_pretrained, torch_dtype=torch.float32, **safe),
        scheduler=read("scheduler", _training_scheduler),
        provenance=_read_provenance(folder) if folder else {},
    )


def build_parts(configs: Path, texts: Iterable[str], seed: int = 0) -> Parts:
    """A pipeline with random weights from the configuration files of its parts.

    Args:
        configs: a folder laid out like a pipeline's, without weights. If it has no tokenizer, a small one is made
            and the text encoder's vocabulary is set to its size.
        texts: what that tokenizer learns its words from.
        seed: of the weights.

    Raises:
        InputError: the folder is no pipeline's, or a file of it is broken.
    """
    if not (configs / INDEX).is_file():
        raise InputError(f"{configs}: no {INDEX} in it. {SUPPORTED}")
    with _broken_files_said(str(configs)), torch.random.fork_rng(devices=[]):
        if (configs / "tokenizer").is_dir():
            tokenizer = CLIPTokenizer.from_pretrained(configs / "tokenizer")
        else:
            tokenizer = train_tokenizer(texts)
        text_config = CLIPTextConfig.from_pretrained(configs / "text_encoder")
        text_config.vocab_size = len(tokenizer)
        text_config.bos_token_id = tokenizer.bos_token_id
        text_config.eos_token_id = text_config.pad_token_id = tokenizer.eos_token_id
        torch.manual_seed(seed)
        return Parts(
            base=str(configs),
            tokenizer=tokenizer,
            text_encoder=CLIPTextModel(text_config),
            vae=AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae")),
            unet=UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet")),
            scheduler=_training_scheduler(str(configs), subfolder="scheduler"),
            provenance={},
        )


def train_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose words are those of the texts; anything else is spelt in characters."""
    characters = [chr(code) for code in range(33, 127)]
    tokenizer = CLIPTokenizer().train_new_from_iterator([*texts, *characters], _TINY_VOCABULARY, show_progress=False)
    tokenizer.model_max_length = 77
    return tokenizer


def save_pipeline(parts: Parts, out: Path, provenance: dict[str, Any]) -> None:
    """Write a diffusers folder with safetensors weights.

    Args:
        parts: LoRA adapters must have been merged.
        out: the folder.
        provenance: what is known of how the weights came about, kept as `dermsynth.json`.
    """
    parts.pipeline(default_sampler(parts)).save_pretrained(out, safe_serialization=True)
    # The prefix of published files, which transformers 5 leaves out: older ones would take random weights without it.
    words = {f"text_model.{n.removeprefix('text_model.')}": v for n, v in parts.text_encoder.state_dict().items()}
    parts.text_encoder.save_pretrained(out / "text_encoder", state_dict=words)
    (out / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


def default_sampler(parts: Parts) -> SchedulerMixin:
    """The scheduler of an exported pipeline; samplers of other kinds read their noise schedule from it."""
    if parts.scheduler.config.rescale_betas_zero_snr:
        # That of Lin et al. 2024; PNDM knows no schedule whose last step has no signal.
        return DDIMScheduler.from_config(parts.scheduler.config)
    return PNDMScheduler.from_config(parts.scheduler.config, skip_prk_steps=True)  # what Stable Diffusion 1.x ships


def refuse_broken_latents(moments: Tensor, base: str) -> None:
    """Refuse a VAE that overflows in half precision, as SDXL's does; its NaN would spread to every weight.

    Args:
        moments: what the VAE made of real images, any shape.
        base: its name.

    Raises:
        InputError: they are not finite.
    """
    if not moments.isfinite().all():
        kind = str(moments.dtype).removeprefix("torch.")
        raise InputError(
            f"model.base: the VAE of {base} gives NaN or infinity in {kind}. Give --trainer.precision bf16-mixed or "
            "32-true, or a base whose VAE is made for half precision."
        )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named weights: names, shapes and values in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def refuse_foreign_weights(name: str, provenance: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Refuse to go on training weights of ours that were fitted on other patients than the data's train split.

    Args:
        name: what they are called in the message.
        provenance: of the weights, if they are ours; else empty.
        data: the provenance of what they are to be trained on.

    Raises:
        InputError: the two train splits differ.
    """
    seen, ours = provenance.get("train_split_sha256"), data.get("train_split_sha256", "")
    if seen and seen != ours:
        raise InputError(
            f"{name} was fitted on another train split ({seen[:12]}) than that of the data "
            f"({ours[:12] or 'none'}), so it may have seen the patients that a classifier is tested on."
        )


def _training_scheduler(base: str, subfolder: str) -> DDPMScheduler:
    # clip_sample belongs to samplers in pixel space; the shipped configurations leave it to a deprecated default.
    return DDPMScheduler.from_pretrained(base, subfolder=subfolder, clip_sample=False)


def _read_provenance(folder: Path) -> dict[str, Any]:
    file = folder / PROVENANCE
    return read_json(file, ADVICE) if file.is_file() else {}


@contextmanager
def _broken_files_said(where: str) -> Iterator[None]:
    """Turn what the libraries raise for missing, cut and garbled files into one message."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # RuntimeError: weights of other shapes
        raise InputError(f"{where} could not be loaded: {first_line(error)} {SUPPORTED}") from error
