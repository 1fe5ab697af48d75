"""LoRA adapters through peft: added, merged and exported."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from dermsynth.diffusion.parts import Parts
from dermsynth.errors import InputError

# Of the text encoder; that of Stable Diffusion 2 is wider.
_WIDTH_OF_SD1 = 768
_TEXT_ENCODER_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
# The width of the largest layers: adapters of more would be larger than what they adapt.
_LARGEST_RANK = 1280


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation (Hu et al. 2022).

    Args:
        rank: of the update.
        alpha: the update is scaled by alpha / rank.
        targets: names of the UNet's linear and convolution layers that get one.
        use_dora: learn the length of each of the weight's rows besides (DoRA, Liu et al. 2024).

    Raises:
        InputError: rank or alpha is out of its range, or no target is named.
    """

    rank: int = 4
    alpha: float = 4
    targets: Sequence[str] = ("to_k", "to_q", "to_v", "to_out.0")
    use_dora: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= _LARGEST_RANK:
            raise InputError(f"model.lora.rank: {self.rank} must be from 1 to {_LARGEST_RANK}.")
        if not 0 < self.alpha < math.inf:
            raise InputError(f"model.lora.alpha: {self.alpha} must be above 0.")
        if not self.targets:
            raise InputError("model.lora.targets: name at least one layer, such as to_q.")


def add_lora(parts: Parts, lora: LoRA, text_encoder: bool) -> None:
    """Freeze the weights and add adapters, to the UNet and on request to the text encoder.

    Raises:
        InputError: no layer has one of the target names.
    """
    models: list[tuple[Any, Sequence[str]]] = [(parts.unet, lora.targets)]
    if text_encoder:
        models.append((parts.text_encoder, _TEXT_ENCODER_TARGETS))
    for model, targets in models:
        model.requires_grad_(False)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=list(targets),
            init_lora_weights="gaussian",
            use_dora=lora.use_dora,
        )
        try:
            model.add_adapter(config)
        except ValueError as error:
            raise InputError(f"model.lora.targets: {list(targets)}: {str(error).splitlines()[0]}") from error


def save_lora(parts: Parts, out: Path) -> None:
    """Write the adapters as `pytorch_lora_weights.safetensors`, which `load_lora_weights` of diffusers reads."""
    files: dict[str, Any] = {}
    for name, model in (("unet", parts.unet), ("text_encoder", parts.text_encoder)):
        if has_lora(model):
            # peft's own keys: the older ones of diffusers have no name for convolutions, and a file with both kinds is
            # read in part, without a word.
            weights = get_peft_model_state_dict(model)
            if name == "text_encoder":
                weights = {_as_published(key): value for key, value in weights.items()}
            files[f"{name}_lora_layers"] = {key: weight.contiguous() for key, weight in weights.items()}
            # Without it a reader would take alpha for equal to the rank.
            files[f"{name}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(out, safe_serialization=True, **files)


def save_kohya(parts: Parts, file: Path, token: str) -> None:
    """Write the adapters as one file in the key format of kohya's scripts, which A1111 and ComfyUI read.

    A layer's update is alpha / rank · up · down. DoRA's row lengths are LyCORIS's `dora_scale` with one number a row,
    which the sum of weight and update is scaled to; a reader that scales otherwise (ComfyUI divides by the row lengths
    before the update) gives somewhat other images. A whole pipeline has no such doubt.

    Args:
        parts: with adapters.
        file: where to.
        token: that the model was taught, which those programs show as the trigger word; blank for none.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, model in (("lora_unet", parts.unet), ("lora_te_text_model", parts.text_encoder)):
        for name, layer in _adapted(model):
            # Some transformers have `text_model` in their names and some have not.
            key = f"{prefix}_{name.removeprefix('text_model.').replace('.', '_')}"
            down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = down, up
            tensors[f"{key}.alpha"] = torch.tensor(float(layer.lora_alpha["default"]))
            if "default" in layer.lora_magnitude_vector:
                length = layer.lora_magnitude_vector["default"].weight
                tensors[f"{key}.dora_scale"] = length.reshape(-1, *[1] * (down.dim() - 1))
    config = parts.unet.peft_config["default"]
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.r),
        "ss_network_alpha": str(float(config.lora_alpha)),
        "ss_v2": str(parts.text_encoder.config.hidden_size > _WIDTH_OF_SD1),
        "ss_sd_model_name": parts.base,
    }
    if token:
        metadata |= {"modelspec.trigger_phrase": token, "ss_tag_frequency": json.dumps({token: {token: 1}})}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file, metadata)


def merge_lora(parts: Parts) -> None:
    """Add the low-rank updates to the weights and remove the adapters."""
    pipeline = parts.pipeline()
    pipeline.fuse_lora(components=["unet", "text_encoder"])
    pipeline.unload_lora_weights()


def has_lora(model: nn.Module) -> bool:
    """Whether adapters have been added."""
    return hasattr(model, "peft_config")


def _adapted(model: nn.Module) -> list[tuple[str, Any]]:
    """The layers that have adapters, by name."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def _as_published(key: str) -> str:
    """A text encoder's key as in files that any version of transformers reads."""
    key = key if key.startswith("text_model.") else f"text_model.{key}"
    return f"{key}.weight" if key.endswith("lora_magnitude_vector") else key
