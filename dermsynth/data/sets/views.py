"""The eight views of a lesion: skin has no upright, so a photograph of it is as good a one turned or mirrored."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dermsynth.seeds import Purpose, entropy

VIEWS = 8

_Number = TypeVar("_Number", bound=np.generic)


def view(image: NDArray[_Number], number: int) -> NDArray[_Number]:
    """One of the eight views of images `[..., H, W]`: transposed (4), then upside down (2), then mirrored (1)."""
    image = image.swapaxes(-1, -2) if number & 4 else image
    return np.ascontiguousarray(image[..., :: -1 if number & 2 else 1, :: -1 if number & 1 else 1])


def random_view(seed: int) -> int:
    """The number of the view that a showing with this seed shows, each as often as the others."""
    return int(np.random.default_rng(entropy(seed, Purpose.VIEW)).integers(VIEWS))
