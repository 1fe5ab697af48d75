"""Pictures to time with: as large and about as hard to compress as photographs of skin."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dermsynth.data.sets import manifest
from dermsynth.data.sets.images import cores, write_png
from dermsynth.data.sets.manifest import Record


def photograph(rng: np.random.Generator, width: int, height: int, grain: float) -> NDArray[np.uint8]:
    """Soft colours under the grain of a camera, uint8 `[height, width, 3]`.

    Args:
        rng: draws both.
        width: pixels.
        height: pixels.
        grain: its standard deviation in grey levels.
    """
    skin = cv2.resize(rng.integers(60, 220, (8, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = cv2.resize(rng.normal(0, grain, (height // 2, width // 2)).astype(np.float32), (width, height))
    return np.clip(skin + noise[:, :, None], 0, 255).astype(np.uint8)


def image_set(root: Path, count: int, width: int, height: int) -> None:
    """An image set of photographs as `prepare` writes it: so many to train on, and one of each class beside them.

    Args:
        root: its folder.
        count: images of the train split.
        width: pixels.
        height: pixels.
    """
    (root / "images").mkdir(parents=True)

    def record(number: int) -> Record:
        name = f"images/{number:06d}.png"
        stored = write_png(root / name, photograph(np.random.default_rng(number), width, height, grain=3))
        diagnosis, malignant = ("NV", 0) if number % 2 else ("MEL", 1)
        return Record(
            name,
            f"{number:06d}",
            stored.sha256,
            stored.width,
            stored.height,
            diagnosis,
            malignant,
            group=str(number),
            split="train" if number < count else "val",  # training asks for one of each class
            source="drawn",
        )

    with ThreadPoolExecutor(cores()) as pool:  # drawing and compressing hold no lock
        manifest.write(root, list(pool.map(record, range(count + 2))), {})
