"""Build or load the classifier network, and sort its parameters for the optimizer.

A network is a transformers image-classification model: a folder or hub id with safetensors weights, or a
mapping with `model_type` and configuration fields for one with random weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel

from dermsynth.errors import InputError
from dermsynth.hub import explain_missing, first_line, is_folder_name, local_folder

SUPPORTED = (
    "Supported: a folder with config.json and model.safetensors, a Hugging Face hub id such as "
    "google/vit-base-patch16-224-in21k (downloaded, or already in the cache), or a mapping such as "
    "{model_type: vit, image_size: 64, patch_size: 8, hidden_size: 128, ...} for random weights."
)


def build(model: str | Mapping[str, Any], classes: Sequence[str], image_size: int | None = None) -> PreTrainedModel:
    """Load a pretrained network with a head for these classes, or build one from its configuration.

    The head is kept only if the loaded network was trained for the same classes in the same order; otherwise
    it is new. If the image size is not the pretrained one, position embeddings are interpolated once
    (Dosovitskiy et al. 2021, sec. 3.2).

    Args:
        model: a folder, a hub id, or a configuration with `model_type`.
        classes: class names in the order of the outputs.
        image_size: side of the square input in pixels; None takes the network's own.

    Raises:
        InputError: nothing usable at that name, or a configuration that makes no network.
    """
    if isinstance(model, str):
        return _load(model, classes, image_size)
    return _from_config(_parse_config(model), classes, image_size)


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: with the optimizer's own weight decay, and with none.

    Biases, norms and other vectors, class and mask tokens, and position embeddings are not decayed (as in
    DeiT, Touvron et al. 2021).
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            leaf = name.rsplit(".", 1)[-1]
            plain = parameter.ndim <= 1 or leaf.endswith("token") or "position" in leaf
            (no_decay if plain else decay).append(parameter)
    return [{"params": decay}, {"params": no_decay, "weight_decay": 0.0}]


def resize_positions(positions: Tensor, patches: int) -> Tensor:
    """Interpolate position embeddings to another square grid; class tokens in front stay as they are.

    Args:
        positions: `[1, k + g², D]` with k < 2g + 1 tokens in front of a g × g grid.
        patches: number of patches of the new grid, a square number.

    Returns:
        `[1, k + patches, D]`.
    """
    old, new = int((positions.shape[1]) ** 0.5), int(patches**0.5)
    tokens = positions.shape[1] - old * old
    grid = positions[:, tokens:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :tokens], grid.flatten(2).transpose(1, 2)], dim=1)


def _parse_config(fields: Mapping[str, Any]) -> PretrainedConfig:
    fields = dict(fields)
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise InputError(f"model: the mapping {fields} has no model_type. {SUPPORTED}")
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise InputError(f"model.model_type: {model_type!r} is not known to transformers. {SUPPORTED}") from error
    # transformers keeps unknown fields without a word; a misspelt one would silently mean the default.
    unknown = [name for name in fields if not hasattr(known, name)]
    if unknown:
        raise InputError(
            f"model: {', '.join(unknown)} is no field of {type(known).__name__}; it has "
            f"{', '.join(sorted(name for name in vars(known) if not name.startswith('_')))}."
        )
    try:
        return AutoConfig.for_model(model_type, **fields)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise InputError(f"model: {fields} makes no {type(known).__name__}: {error}") from error


def _from_config(config: PretrainedConfig, classes: Sequence[str], image_size: int | None) -> PreTrainedModel:
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in enumerate(classes)}
    if image_size is not None:
        config.image_size = image_size
    try:
        return AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise InputError(f"model: {config.model_type} cannot be built: {str(error)[:300]} {SUPPORTED}") from error


def _load(name: str, classes: Sequence[str], image_size: int | None) -> PreTrainedModel:
    if folder := local_folder(name):
        name = str(folder)
    elif is_folder_name(name):  # no network for a typing error
        raise InputError(f"model: {explain_missing(name, '--model.model', 'config.json')} {SUPPORTED}")
    try:
        config = AutoConfig.from_pretrained(name)
        source, info = AutoModelForImageClassification.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model: {name!r} could not be loaded: {first_line(error)} {SUPPORTED}") from error
    same_classes = list(config.id2label.values()) == list(classes)
    target = _from_config(config, classes, image_size)
    backbone = f"{target.base_model_prefix}."
    missing = sorted(key for key in info["missing_keys"] if key.startswith(backbone))
    if missing:
        raise InputError(
            f"model: {name!r} lacks {len(missing)} weights of a {config.model_type}, such as {missing[0]}. {SUPPORTED}"
        )
    state = target.state_dict()
    for key, tensor in source.state_dict().items():
        if key.startswith(backbone) or same_classes:
            if key.endswith("position_embeddings") and tensor.shape != state[key].shape:
                grid = int(state[key].shape[1] ** 0.5)
                tensor = resize_positions(tensor, grid * grid)
            state[key] = tensor
    target.load_state_dict(state)
    return target
