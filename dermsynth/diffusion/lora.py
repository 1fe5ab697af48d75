"""LoRA adapters through peft: added, merged and exported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from dermsynth.diffusion.parts import Parts
from dermsynth.errors import InputError

_TEXT_ENCODER_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation (Hu et al. 2022).

    Args:
        rank: of the update.
        alpha: the update is scaled by alpha / rank.
        targets: names of the UNet's linear layers that get one.
    """

    rank: int = 4
    alpha: float = 4
    targets: Sequence[str] = ("to_k", "to_q", "to_v", "to_out.0")


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
            r=lora.rank, lora_alpha=lora.alpha, target_modules=list(targets), init_lora_weights="gaussian"
        )
        try:
            model.add_adapter(config)
        except ValueError as error:
            raise InputError(f"model.lora.targets: {list(targets)}: {str(error).splitlines()[0]}") from error


def save_lora(parts: Parts, out: Path) -> None:
    """Write the adapters as `pytorch_lora_weights.safetensors`, which `load_lora_weights` reads."""
    if not has_lora(parts.unet):
        raise InputError("--format lora: the model was trained without `lora`, so it has no LoRA adapters to export.")
    files: dict[str, Any] = {}
    for name, model in (("unet", parts.unet), ("text_encoder", parts.text_encoder)):
        if has_lora(model):
            files[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(get_peft_model_state_dict(model))
            # Without it a reader would take alpha for equal to the rank.
            files[f"{name}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(out, safe_serialization=True, **files)


def merge_lora(parts: Parts) -> None:
    """Add the low-rank updates to the weights and remove the adapters."""
    for model in (parts.unet, parts.text_encoder):
        if has_lora(model):
            for module in model.modules():
                if hasattr(module, "merge") and hasattr(module, "base_layer"):
                    module.merge()
            _unwrap(model)


def has_lora(model: nn.Module) -> bool:
    """Whether adapters have been added."""
    return hasattr(model, "peft_config")


def _unwrap(model: Any) -> None:
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.base_layer)
    del model.peft_config
    model._hf_peft_config_loaded = False  # else save_pretrained looks for the adapters
