"""Build or load the classifier network, and sort its parameters for the optimizer.

A network is a transformers image-classification model: a folder or hub id with safetensors weights, or a
mapping with `model_type` and configuration fields for one with random weights.
"""

import copy
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from dermsynth.errors import InputError
from dermsynth.hub import explain_missing, first_line, is_folder_name, local_folder
from dermsynth.run.config import leaves
from dermsynth.weights import loading, refuse_missing, refuse_not_finite, refuse_quantised, said_of_unused, shard_names

SUPPORTED = (
    "Supported: a folder with config.json and model.safetensors, a Hugging Face hub id such as "
    "google/vit-base-patch16-224-in21k (downloaded, or already in the cache), or a mapping such as "
    "{model_type: vit, image_size: 64, patch_size: 8, hidden_size: 128, ...} for random weights."
)
# On which a network that takes any size is tried out.
_ANY_SIZE = 224


# Fields that transformers takes without a look: a network of no layers trains, and one of no width is a traceback.
_SIZES = {
    "hidden_size",
    "image_size",
    "intermediate_size",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
}
_LARGEST = 65_536
# Twenty times those of the deepest; each takes time to build, though no memory.
_MOST_LAYERS = 1_000


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
    config = _parse_config(model)
    try:
        _checked(config, classes, image_size)
        network = _from_config(config, classes, image_size)
    except InputError:
        raise
    except Exception as error:  # whatever a network raises that is built of nonsense
        raise InputError(
            f"model: {config.model_type} cannot be built: {first_line(error)[:300]} {SUPPORTED}"
        ) from error
    refuse_not_finite(f"model: {config.model_type}", network.state_dict())
    return network


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two named groups: with the optimizer's own weight decay, and with none.

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
    return [{"params": decay, "name": "weights"}, {"params": no_decay, "name": "no_decay", "weight_decay": 0.0}]


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
    for name in _SIZES & fields.keys():
        if isinstance(fields[name], int | float) and not 1 <= fields[name] <= _LARGEST:
            raise InputError(f"model.{name}: {fields[name]} must be from 1 to {_LARGEST}.")
    try:
        return AutoConfig.for_model(model_type, **fields)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise InputError(f"model: {fields} makes no {type(known).__name__}: {error}") from error


def image_size(config: PretrainedConfig) -> int | None:
    """The side of a network's square input in pixels; None if it takes any."""
    side = getattr(_of_vision(config), "image_size", None)
    if isinstance(side, list | tuple) and len({*side}) == 1:
        side = side[0]
    return side if isinstance(side, int) else None


def _of_vision(config: PretrainedConfig) -> PretrainedConfig:
    """Where a network of images and texts, such as CLIP, keeps what is said of images."""
    return getattr(config, "vision_config", config)


def _from_config(config: PretrainedConfig, classes: Sequence[str], side: int | None) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in enumerate(classes)}
    if side is not None:
        _of_vision(config).image_size = side
    if config.architectures is None:
        config.architectures = []  # transformers looks through them where a type has several networks
    return AutoModelForImageClassification.from_config(config, dtype=torch.float32)


def _check_fields(config: PretrainedConfig) -> None:
    """Refuse numbers that make a network, but none that could learn."""
    fields = leaves(config.to_dict())
    for key, value in fields.items():
        name = key.rpartition(".")[2]
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"model.{key}: {value} is no finite number.")
        if name in ("num_hidden_layers", "num_attention_heads", "hidden_size") and isinstance(value, int) and value < 1:
            raise InputError(f"model.{key}: {value} must be at least 1.")
        if name == "num_hidden_layers" and isinstance(value, int) and value > _MOST_LAYERS:
            raise InputError(f"model.{key}: {value} must be at most {_MOST_LAYERS}.")
        if name.endswith(("_prob", "dropout")) and isinstance(value, int | float) and not 0 <= value < 1:
            raise InputError(f"model.{key}: {value} is no probability below 1.")
        if name.endswith("_eps") and isinstance(value, int | float) and not value > 0:
            raise InputError(f"model.{key}: {value} must be above 0, as it keeps a norm from dividing by 0.")
        heads = fields.get(key.removesuffix("hidden_size") + "num_attention_heads")
        if name == "hidden_size" and isinstance(value, int) and isinstance(heads, int) and heads > 0 < value % heads:
            raise InputError(f"model.{key}: {value} cannot be shared by num_attention_heads {heads}. Give a multiple.")


def _checked(config: PretrainedConfig, classes: Sequence[str], side: int | None) -> Callable[[str], bool]:
    """Try a configuration out on shapes alone, which costs no memory, and find the head.

    Returns:
        Whether a weight of that name is the head's: of the modules that depend on the number of classes.
    """
    _check_fields(config)
    with torch.device("meta"):
        network, wider = (_from_config(config, names, side).eval() for names in (classes, [*classes, "one more"]))
        if "spatial_shapes" in inspect.signature(network.forward).parameters:
            raise InputError(
                f"model: {config.model_type} takes an image as patches of its own shape (NaFlex), which is not "
                "supported. Give one that takes square images, such as siglip."
            )
        pixels = torch.zeros(2, 3, *[image_size(network.config) or _ANY_SIZE] * 2)
        logits = network(pixel_values=pixels).logits
    if logits.shape != (2, len(classes)):
        raise ValueError(f"it makes {tuple(logits.shape)} of two images and {len(classes)} classes")
    shapes, other = ({name: tensor.shape for name, tensor in n.state_dict().items()} for n in (network, wider))
    last = {name for name in shapes if shapes[name] != other[name]}
    tops = {name.split(".")[0] for name in last}
    if all(name.split(".")[0] in tops for name in shapes):
        return last.__contains__
    return lambda name: name.split(".")[0] in tops


def _load(name: str, classes: Sequence[str], side: int | None) -> PreTrainedModel:
    if folder := local_folder(name):
        name = str(folder)
    elif is_folder_name(name):  # no network for a typing error
        raise InputError(f"model: {explain_missing(name, '--model.model', 'config.json')} {SUPPORTED}")
    with loading(f"model: {name!r}", SUPPORTED):
        config = AutoConfig.from_pretrained(name)
        is_head = _checked(config, classes, side)
        source, info = AutoModelForImageClassification.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        refuse_quantised(f"model: {name!r}", _files(name))
        target = _from_config(config, classes, side)
    missing = info["missing_keys"]
    refuse_missing(f"model: {name!r}", [key for key in missing if not is_head(key)])
    if unused := said_of_unused(f"model: {name!r}", info["unexpected_keys"]):
        warnings.warn(unused, stacklevel=2)
    keep_head = list(config.id2label.values()) == list(classes) and not missing
    state = target.state_dict()
    for key, tensor in source.state_dict().items():
        if keep_head or not is_head(key):
            state[key] = _fitting(key, tensor, state[key].shape)
    target.load_state_dict(state)
    refuse_not_finite(f"model: {name!r}", state)
    return target


def _fitting(key: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """A weight as the network for another image size takes it."""
    if tensor.shape == shape:
        return tensor
    if "position_embedding" not in key or tensor.shape[-1] != shape[-1]:
        raise InputError(
            f"model.image_size: {key} is {tuple(tensor.shape)} and cannot be resized to {tuple(shape)}. Leave "
            "image_size as the pretrained network has it."
        )
    grid = int(shape[-2] ** 0.5)
    return resize_positions(tensor.reshape(1, -1, shape[-1]), grid * grid).reshape(shape)


def _files(name: str) -> list[Path]:
    """The files of weights that were just loaded."""
    found = functools.partial(cached_file, name, local_files_only=True, _raise_exceptions_for_missing_entries=False)
    index = found(SAFE_WEIGHTS_INDEX_NAME)
    names = shard_names(Path(index)) if index else [SAFE_WEIGHTS_NAME]
    return [Path(file) for file in map(found, names) if file]
