"""The parts of a Stable Diffusion pipeline: loaded from a hub id or folder, built from configurations, saved.

The folder layout is that of `diffusers.StableDiffusionPipeline.save_pretrained`, so a base of ours and
`stable-diffusion-v1-5/stable-diffusion-v1-5` are read by the same lines.
"""

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dermsynth.diffusion.bases import (
    ADVICE,
    INDEX,
    PARTS_WITH_WEIGHTS,
    SUPPORTED,
    base_folder,
    check_base,
    check_together,
    commit_of,
    refuse_negative,
)
from dermsynth.errors import InputError
from dermsynth.files import read_json
from dermsynth.provenance import check_provenance
from dermsynth.weights import (
    loading,
    refuse_missing,
    refuse_not_finite,
    refuse_quantised,
    said_of_unused,
    shard_names,
    tensors_of,
)

PROVENANCE = "dermsynth.json"
_TINY_VOCABULARY = 768
_END = "</w>"  # of a word, in CLIP's tokenizers


@dataclass
class Parts:
    """A text-to-image model in its parts.

    Args:
        base: the hub id or folder it comes from.
        tokenizer: text -> ids.
        load_text_encoder: makes `text_encoder`, ids -> embeddings `[B, 77, D]`, when it is first asked for.
        load_vae: the same for `vae`, pixels in [-1, 1] `[B, 3, H, W]` <-> latents `[B, 4, h, w]`.
        vae_config: what can be known of the VAE without it.
        unet: predicts noise or velocity from noisy latents.
        scheduler: the training noise schedule; samplers take their configuration from it.
        sampler: the kind of scheduler that the base comes with.
        provenance: of the base, if it is one of ours: `train_split_sha256` and more; else empty.
    """

    base: str
    tokenizer: CLIPTokenizer
    load_text_encoder: Callable[[], CLIPTextModel]
    load_vae: Callable[[], AutoencoderKL]
    vae_config: Mapping[str, Any]
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler
    sampler: type[SchedulerMixin]
    provenance: dict[str, Any]

    @property
    def scaling_factor(self) -> float:
        """What the VAE's latents are multiplied by to have unit variance."""
        return self.vae_config.get("scaling_factor", 0.18215)  # files older than the key are of Stable Diffusion 1.x

    # Training from cached latents needs neither of the two.
    @cached_property
    def text_encoder(self) -> CLIPTextModel:
        """Loaded when it is first asked for."""
        with torch.inference_mode(False):
            return self.load_text_encoder()

    @cached_property
    def vae(self) -> AutoencoderKL:
        """Loaded when it is first asked for."""
        with torch.inference_mode(False):
            return self.load_vae()

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
    name, which = str(folder or base), {} if folder else {"revision": commit_of(base)}

    def read(part: str, load: Callable[..., Any]) -> Any:
        with loading(f"model.base: the {part} of {base}", SUPPORTED):
            return load(name, subfolder=part, **which)

    configs = {part: part_config(base, part) for part in ("text_encoder", "vae")}
    refuse_negative(base, "vae", configs["vae"])
    for part, build in (("text_encoder", _empty_text_encoder), ("vae", AutoencoderKL.from_config)):
        # They are loaded later; what is broken is said now.
        with loading(f"model.base: the {part} of {base}", SUPPORTED), torch.device("meta"):
            refuse_quantised(f"model.base: the {part} of {base}", _weight_files(base, part))
            build(configs[part])
    parts = Parts(
        base=base,
        tokenizer=read("tokenizer", CLIPTokenizer.from_pretrained),
        load_text_encoder=functools.partial(_load_network, base, "text_encoder", CLIPTextModel),
        load_vae=functools.partial(_load_network, base, "vae", AutoencoderKL),
        vae_config=configs["vae"],
        unet=_load_network(base, "unet", UNet2DConditionModel),
        scheduler=read("scheduler", _training_scheduler),
        sampler=read("scheduler", _shipped_sampler),
        provenance=_read_provenance(folder) if folder else {},
    )
    check_together(
        base,
        unet=parts.unet.config,
        text_encoder=CLIPTextConfig.from_dict(configs["text_encoder"]).to_dict(),
        scaling_factor=parts.scaling_factor,
        latent_channels=parts.vae_config.get("latent_channels", 4),
        words=len(parts.tokenizer),
        length=parts.tokenizer.model_max_length,
        alphas_cumprod=parts.scheduler.alphas_cumprod.tolist(),
    )
    return parts


def _empty_text_encoder(config: Mapping[str, Any]) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig.from_dict(dict(config)))


def _load_network(base: str, part: str, kind: type[Any]) -> Any:
    """A part with all of its weights, in float32.

    Raises:
        InputError: its files are broken, or weights are missing, of other shapes or types, NaN or infinite.
    """
    owner = f"model.base: the {part} of {base}"
    dtype = {"dtype" if kind is CLIPTextModel else "torch_dtype": torch.float32}
    with loading(owner, SUPPORTED):
        files = _weight_files(base, part)
        refuse_quantised(owner, files)
        network, info = kind.from_pretrained(
            # From where they lie: of a hub id, diffusers would ask the hub whether there are others.
            str(files[0].parents[1]),
            subfolder=part,
            use_safetensors=True,  # a pickle could run code
            output_loading_info=True,
            **dtype,
        )
    refuse_missing(owner, info["missing_keys"])
    # Old files also hold positions, which are no weights.
    if unused := said_of_unused(owner, [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]):
        warnings.warn(unused, stacklevel=2)
    refuse_not_finite(owner, network.state_dict())
    return network


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
    with loading(str(configs), SUPPORTED), torch.random.fork_rng(devices=[]):
        if (configs / "tokenizer").is_dir():
            tokenizer = CLIPTokenizer.from_pretrained(configs / "tokenizer")
        else:
            tokenizer = train_tokenizer(texts)
        text_config = CLIPTextConfig.from_pretrained(configs / "text_encoder")
        text_config.vocab_size = len(tokenizer)
        text_config.bos_token_id = tokenizer.bos_token_id
        text_config.eos_token_id = text_config.pad_token_id = tokenizer.eos_token_id
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(text_config)
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
        return Parts(
            base=str(configs),
            tokenizer=tokenizer,
            load_text_encoder=lambda: text_encoder,
            load_vae=lambda: vae,
            vae_config=vae.config,
            unet=UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet")),
            scheduler=_training_scheduler(str(configs), subfolder="scheduler"),
            sampler=_shipped_sampler(str(configs), subfolder="scheduler"),
            provenance={},
        )


def train_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose words are those of the texts; anything else is spelt in characters."""
    samples = [*texts, *(chr(code) for code in range(33, 127))]
    untrained = CLIPTokenizer()
    backend = Tokenizer(BPE())
    backend.normalizer, backend.pre_tokenizer = (
        untrained.backend_tokenizer.normalizer,
        untrained.backend_tokenizer.pre_tokenizer,
    )
    words = (backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)) for text in samples)
    ends = sorted({f"{word[-1]}{_END}" for found in words for word, _ in found})
    # The trainer would number the ends of words in an order that differs between processes, and so decide ties between
    # pairs differently. What it takes for special keeps the number of its place.
    special = [untrained.bos_token, untrained.eos_token, *ends]
    trainer = BpeTrainer(
        vocab_size=_TINY_VOCABULARY,
        special_tokens=special,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        end_of_word_suffix=_END,
        show_progress=False,
    )
    backend.train_from_iterator(samples, trainer)
    model = json.loads(backend.to_str())["model"]
    return CLIPTokenizer(model["vocab"], [tuple(pair) for pair in model["merges"]], model_max_length=77)


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
    """The scheduler of an exported pipeline: the base's own kind, with the noise schedule that was trained on."""
    if parts.scheduler.config.rescale_betas_zero_snr:
        # That of Lin et al. 2024; many others, such as PNDM, know no schedule whose last step has no signal.
        return DDIMScheduler.from_config(parts.scheduler.config)
    return parts.sampler.from_config(parts.scheduler.config)


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


def tensors_sha256(tensors: Iterable[Tensor]) -> str:
    """A hash of weights: their values in float32, in whatever order and under whatever names.

    diffusers renames and reshapes some weights of old files when it loads them, and the hash of a file (`file_sha256`)
    is that of the model that is made of it.
    """
    digests = sorted(
        hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
        for tensor in tensors
        if tensor.is_floating_point()  # old files also hold positions, which are no weights
    )
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def base_sha256(base: str) -> str:
    """The hash of all weights of a base, from its files: training, rounding and checkpoints do not change it."""
    return hashlib.sha256(" ".join(file_sha256(base, part) for part in PARTS_WITH_WEIGHTS).encode()).hexdigest()


def file_sha256(base: str, part: str) -> str:
    """The hash of the weights of a part (`tensors_sha256`), read from its file one by one."""
    files = tuple(file.resolve() for file in _weight_files(base, part))
    return _tensors_of_files_sha256(files, tuple(file.stat().st_mtime_ns for file in files))


@functools.cache
def _tensors_of_files_sha256(files: tuple[Path, ...], changed: tuple[int, ...]) -> str:
    return tensors_sha256(tensors_of(files))


def part_config(base: str, part: str) -> dict[str, Any]:
    """What the configuration file of a part says."""
    with loading(f"model.base: the {part} of {base}", SUPPORTED):
        return read_json(_part_file(base, part, "config.json"), ADVICE)


def refuse_foreign_weights(
    name: str, provenance: Mapping[str, Any], data: Mapping[str, Any], held_out: Collection[str]
) -> None:
    """Refuse to train on from weights of ours that may know the patients that a classifier is tested on.

    Weights were fitted on the data's own train split, or on images that their provenance lists, none of which is held
    out here. The second is how a packaged base serves any data but that which it knows.

    Args:
        name: what they are called in the message.
        provenance: of the weights, if they are ours; else empty.
        data: the provenance of what they are to be trained on.
        held_out: ids of the images that are validated or tested on.

    Raises:
        InputError: the two train splits differ, or an image that the weights were fitted on is held out.
    """
    known = sorted(set(provenance.get("train_images", [])) & set(held_out))
    if known:
        raise InputError(
            f"{name} was fitted on {len(known)} of the images that the data validates or tests on, such as {known[0]}. "
            "Give another base, or keep that data set's own split (prepare --split official)."
        )
    seen, ours = provenance.get("train_split_sha256"), data.get("train_split_sha256", "")
    if seen and seen != ours:
        raise InputError(
            f"{name} was fitted on another train split ({seen[:12]}) than that of the data "
            f"({ours[:12] or 'none'}), so it may have seen the patients that a classifier is tested on."
        )


def _weight_files(base: str, part: str) -> list[Path]:
    """Where the weights of a part lie: in one file, or sharded."""
    name = f"{'model' if part == 'text_encoder' else 'diffusion_pytorch_model'}.safetensors"
    index = f"{name}.index.json"
    folder = base_folder(base)
    if folder and not any((folder / part / file).is_file() for file in (name, index)):
        raise InputError(f"model.base: {folder / part} has no {name}. {ADVICE}")
    if folder is None or (folder / part / name).is_file():
        with suppress(EntryNotFoundError):
            return [_part_file(base, part, name)]
    return [_part_file(base, part, file) for file in shard_names(_part_file(base, part, index))]


def _part_file(base: str, part: str, name: str) -> Path:
    folder = base_folder(base)
    if folder:
        return folder / part / name
    return Path(hf_hub_download(base, f"{part}/{name}", revision=commit_of(base)))


def _training_scheduler(base: str, **where: str) -> DDPMScheduler:
    # clip_sample belongs to samplers in pixel space; the shipped configurations leave it to a deprecated default.
    return DDPMScheduler.from_pretrained(base, clip_sample=False, **where)


def _shipped_sampler(base: str, **where: str) -> type[SchedulerMixin]:
    """The class that a base names; DDIM for one that does not exist or lacks a library."""
    named = DDPMScheduler.load_config(base, **where).get("_class_name")
    usable = [kind for kind in DDPMScheduler().compatibles if issubclass(kind, SchedulerMixin)]
    return next((kind for kind in usable if kind.__name__ == named), DDIMScheduler)


def _read_provenance(folder: Path) -> dict[str, Any]:
    file = folder / PROVENANCE
    return check_provenance(str(file), read_json(file, ADVICE)) if file.is_file() else {}
