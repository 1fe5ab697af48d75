"""What data modules, models and callbacks ask of one another: they meet in YAML, and import none of each other.

`isinstance` asks whether an object has what a protocol names. No torch at runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict, TypeVar, runtime_checkable

from dermsynth.provenance import Provenance

if TYPE_CHECKING:
    from dataclasses import Field

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

_T = TypeVar("_T")


class Batch(TypedDict, total=False):
    """A batch of B images in training, validation or test; which keys it has, `docs/design.md` says (Batch keys)."""

    pixel_values: Tensor
    label: Tensor
    synthetic: Tensor
    image_id: list[str]
    group: list[str]
    prompt: list[str]
    prior: Tensor
    moments: Tensor
    prompt_embeds: Tensor
    empty_embeds: Tensor


class PlannedImage(TypedDict):
    """One image that is to be made."""

    index: int
    seed: int
    class_name: str
    prompt: str


class GenerationBatch(TypedDict):
    """A batch of B images that are to be made."""

    index: Tensor
    seed: Tensor
    class_name: list[str]
    prompt: list[str]


class GeneratedBatch(GenerationBatch):
    """The same with what was made: `images`, uint8 `[B, H, W, 3]`."""

    images: NDArray[np.uint8]


class Outcomes(TypedDict):
    """What a classifier's validation, test and predict steps return: probabilities are `[B, C]`, labels `[B]`."""

    probabilities: Tensor
    label: Tensor
    image_id: list[str]
    group: list[str]


@runtime_checkable
class Classed(Protocol):
    """A data module or model that names its classes, in the order of the labels."""

    classes: list[str]


@runtime_checkable
class SplitData(Protocol):
    """Data that say, from `setup` on, what their train split is; a model fitted on it keeps that in its checkpoints."""

    provenance: Provenance


@runtime_checkable
class HeldOutData(Protocol):
    """Data that name the images, by their ids, that are validated or tested on."""

    held_out: frozenset[str]


@runtime_checkable
class ExternalData(Protocol):
    """Data that say whether a model that was fitted on another train split may be tested on them."""

    external: bool


@runtime_checkable
class CountedTraining(Protocol):
    """Data that count how often an epoch of training shows each class, on average."""

    @property
    def class_counts(self) -> Sequence[float]:
        """In the order of the labels."""


@runtime_checkable
class CountedValidation(Protocol):
    """Data that count the validation images of each class."""

    @property
    def val_counts(self) -> Sequence[int]:
        """In the order of the labels."""


@runtime_checkable
class PromptedData(Protocol):
    """Data with a prompt per image."""

    #: The rare word that the prompts ask for; blank if they have none.
    token: str
    #: Those that the text encoder must not cut, by the key that gives them.
    prompts: Mapping[str, Sequence[str]]


@runtime_checkable
class HeedsSignals(Protocol):
    """A callback that saves the training when the process is told to stop."""

    #: At which signals.
    signals: Collection[int]


@runtime_checkable
class PlannedData(Protocol):
    """Data that say which images are to be made."""

    #: All of the set.
    items: Sequence[PlannedImage]
    #: Indices of those that are there; a batch of these alone is not made again.
    made: Set[int]

    def batches(self) -> Sequence[Sequence[PlannedImage]]:
        """Those of this process, as they are made together where none is there."""


class FrozenEncoders(Protocol):
    """A model's autoencoder and text encoder; their tensors are float32, whatever the precision of training."""

    @property
    def vae_sha256(self) -> str:
        """Hash of the autoencoder, weights and configuration."""

    @property
    def text_sha256(self) -> str | None:
        """Hash of text encoder and tokenizer; None if they are trained, as the embeddings of prompts then change."""

    def moments(self, pixels: Tensor) -> Tensor:
        """Pixels in [-1, 1] `[B, 3, H, W]` -> mean and log-variance of their latents `[B, 2C, h, w]`."""

    def embeddings(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """B prompts -> their embeddings `[B, L, D]`."""

    def release(self) -> None:
        """Let go of the memory that the frozen models take."""


@runtime_checkable
class LatentModel(Protocol):
    """A model whose latents and embeddings of prompts can be cached."""

    @property
    def encoders(self) -> FrozenEncoders:
        """What makes them."""


class SamplingSettings(Protocol):
    """A dataclass that says how images are sampled from a generator."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def steps(self) -> int:
        """Of the sampler."""

    @property
    def guidance_scale(self) -> float | tuple[float, float]:
        """Of classifier-free guidance, or the least and the most."""

    def guidance(self, seed: int) -> float:
        """That of the image with this seed."""

    @property
    def scheduler(self) -> str:
        """The sampler's name."""

    @property
    def negative_prompt(self) -> str:
        """What guidance leads away from."""


@runtime_checkable
class Generator(Protocol):
    """A model that makes images of prompts."""

    #: Of its weights.
    provenance: Provenance

    @property
    def sampling(self) -> SamplingSettings:
        """How its images are sampled."""

    @property
    def base(self) -> str:
        """The pipeline that it was made of."""

    def check_prompts(self, prompts: Iterable[str] | None = None, key: str = "data") -> None:
        """Refuse prompts that would be cut, naming the key."""

    def whole(self) -> AbstractContextManager[None]:
        """Where all processes hold all weights, whatever number of images each draws."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], black_if_nan: bool = False) -> NDArray[np.uint8]:
        """Images of the current weights, uint8 `[B, H, W, 3]`."""


@runtime_checkable
class Exportable(Protocol):
    """A trained model that can be written in the format of another library."""

    #: Of its weights.
    provenance: Provenance

    def export(self, out: Path, format: str, name: str) -> None:
        """Write it into a folder that is there, under its run's name where programs show a file by its own."""


class Strategy(Protocol):
    """How the processes of a run work together."""

    @property
    def root_device(self) -> torch.device:
        """This process's device."""

    def broadcast(self, obj: _T, src: int, /) -> _T:
        """The object of one process, in all of them."""


class Processes(Protocol):
    """What is asked of a Trainer about the processes of a run, where Lightning is not known."""

    @property
    def global_rank(self) -> int:
        """Which process this is."""

    @property
    def world_size(self) -> int:
        """How many there are."""

    @property
    def strategy(self) -> Strategy:
        """How they work together."""
