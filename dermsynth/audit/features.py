"""Images as vectors, by an extractor that has a name: every number of the audit is said beside it."""

from pathlib import Path
from typing import Any, Protocol

import dermsynth.run.lean  # noqa: F401

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from dermsynth.classification.classifier import Classifier
from dermsynth.classification.vit import image_size
from dermsynth.diffusion.bases import INDEX, base_folder
from dermsynth.diffusion.encoders import BaseEncoders
from dermsynth.diffusion.parts import load_parts
from dermsynth.errors import InputError
from dermsynth.hub import explain_missing, is_folder_name, local_folder
from dermsynth.run.config import RUN_FILE
from dermsynth.run.folder import last_checkpoint
from dermsynth.weights import loading, refuse_missing

DEFAULT = "tiny"
Features = NDArray[np.float32]

_ANY_SIZE = 224  # of a network that takes any
_SUPPORTED = (
    "Give a transformers model as a hub id or a folder, a classifier's run or checkpoint, the folder of a Stable "
    "Diffusion pipeline, or tiny, which needs no download."
)


class Extractor(Protocol):
    """What makes vectors of images.

    Attributes:
        name: that stands beside every number.
        size: pixels of the squares that it takes.
    """

    name: str
    size: int

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Vectors `[B, D]` of squares `[B, size, size, 3]`."""
        ...


def find_extractor(name: str) -> Extractor:
    """The extractor of a name.

    Args:
        name: a packaged base or a pipeline's folder, for its autoencoder; a classifier's run folder or checkpoint, for
            its last features; a folder or hub id of a transformers model.

    Raises:
        InputError: there is nothing of that name, or it cannot be loaded.
    """
    folder = base_folder(name)
    if folder and (folder / INDEX).is_file():
        return _Autoencoder(name)
    path = Path(name).expanduser()
    if path.suffix == ".ckpt" or (path / RUN_FILE).is_file():
        return _LastFeatures(name, best_checkpoint(path))
    if is_folder_name(name) and not local_folder(name):
        raise InputError(f"--features: {explain_missing(name, '--features', 'config.json')} {_SUPPORTED}")
    return _Pretrained(name)


def best_checkpoint(path: Path) -> Path:
    """A checkpoint given as such or as a run's folder: of a folder best.ckpt, as our recipes call it, or the last.

    Raises:
        InputError: the run has none.
    """
    if path.suffix == ".ckpt":
        return path
    for file in (path / "checkpoints" / "best.ckpt", last_checkpoint(path)):
        if file.is_file():
            return file
    raise InputError(f"{path}: no checkpoint in it. Train the run first, or give a checkpoint.")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _scaled(images: NDArray[np.uint8]) -> Tensor:
    """Squares `[B, S, S, 3]` as our networks see them, `[B, 3, S, S]` in [-1, 1], on the device."""
    pixels = torch.from_numpy(images).to(_device()).permute(0, 3, 1, 2)
    return pixels.float().div_(127.5).sub_(1)


class _Autoencoder:
    """The mean latents of a base's autoencoder, at the size that the base generates."""

    def __init__(self, base: str) -> None:
        parts = load_parts(base)
        self._encoders = BaseEncoders(parts, train_text_encoder=False)
        factor = 2 ** (len(parts.vae_config["block_out_channels"]) - 1)
        self.name, self.size = f"autoencoder of {Path(base).name}", int(parts.unet.config.sample_size) * factor

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        mean, _ = self._encoders.moments(_scaled(images)).chunk(2, dim=1)
        return mean.flatten(1)


class _LastFeatures:
    """What the last layer of a classifier takes: its features before they become classes."""

    def __init__(self, name: str, checkpoint: Path) -> None:
        self._model = Classifier.load_from_checkpoint(checkpoint).to(_device())
        classes = len(self._model.classes)
        linear = [part for part in self._model.modules() if isinstance(part, nn.Linear)]
        heads = [part for part in linear if part.out_features == classes]
        if not heads:
            raise InputError(f"--features {name}: its last layer is none that features could be taken from.")
        self._taken: list[Tensor] = []
        heads[-1].register_forward_pre_hook(lambda _, taken: self._taken.append(taken[0]))
        self.name, self.size = f"last features of {Path(name).name}", image_size(self._model.model.config) or _ANY_SIZE

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        self._taken.clear()
        self._model(_scaled(images))
        return self._taken[-1].flatten(1)


class _Pretrained:
    """The pooled output of a transformers model, else the mean over what it gives for the patches."""

    def __init__(self, name: str) -> None:
        folder = local_folder(name)
        source, what = str(folder or name), f"--features {name}"
        with loading(what, _SUPPORTED):
            self._processor = AutoImageProcessor.from_pretrained(source)
            model, info = AutoModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        # A pooling layer that the file lacks would be random numbers.
        missing = [key for key in info["missing_keys"] if "pooler" not in key]
        refuse_missing(what, missing)
        self._pools = not info["missing_keys"]
        self._model: Any = model.eval().to(_device())
        self.name, self.size = Path(name).name if folder else name, image_size(model.config) or _ANY_SIZE

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"].to(_device())
        if hasattr(self._model, "get_image_features"):  # a model of images and texts, such as CLIP
            features = self._model.get_image_features(pixel_values=pixels)
            return features if isinstance(features, Tensor) else features.pooler_output
        output = self._model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self._pools:
            return pooled.flatten(1)
        hidden = output.last_hidden_state
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.flatten(2).mean(dim=2)
