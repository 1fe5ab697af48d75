"""Images as batch items: what a model is shown of each, and what it is told."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from dermsynth.data.loading.pixel_cache import PixelCache
from dermsynth.data.loading.transforms import Transform
from dermsynth.data.mixing.sampler import Draw
from dermsynth.data.sets.images import read_rgb
from dermsynth.data.sets.manifest import Record

#: What a model is shown: an image's place among the samples and the seed of the showing -> tensors of a batch item.
Show = Callable[[int, int], dict[str, Tensor]]


class Sample(NamedTuple):
    """One image that can be loaded: where it lies, what is known of it, its class."""

    path: Path
    record: Record
    label: int


class ShowPixels:
    """Shows `pixel_values`, from `cache`, which holds the samples in the same order, or from the files without one."""

    def __init__(self, samples: Sequence[Sample], transform: Transform, cache: PixelCache | None) -> None:
        self.samples, self.transform, self.cache = samples, transform, cache

    def __call__(self, number: int, seed: int) -> dict[str, Tensor]:
        """See `Show`; float32 `[3, size, size]`."""
        if self.cache is None:
            sample = self.samples[number]
            image = read_rgb(sample.path, (sample.record.width, sample.record.height))
        else:
            image = self.cache[number]
        return {"pixel_values": self.transform(image, seed)}


class LesionImages(Dataset[dict[str, Any]]):
    """Samples as batch items; `describe` adds what a model needs beside what it is shown and the label.

    It is given the seed of a showing, or None where images are held out and always described alike.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        show: Show,
        describe: Callable[[Sample, int | None], dict[str, Any]],
        held_out: bool,
    ) -> None:
        self.samples, self.show, self.describe, self.held_out = samples, show, describe, held_out

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        sample = self.samples[draw.record]
        return {
            **self.show(draw.record, draw.seed),
            "label": sample.label,
            "synthetic": sample.record.origin == "synthetic",
            "image_id": sample.record.image_id,
            **self.describe(sample, None if self.held_out else draw.seed),
        }
