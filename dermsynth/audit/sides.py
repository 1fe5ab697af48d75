"""The two sides of an audit, real and synthetic: which images, of which class and patient, and their pixels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermsynth.data.sets import manifest
from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import cores, fit_short_side, read_rgb
from dermsynth.data.sets.manifest import ImageSet, Record
from dermsynth.errors import InputError

_AT_ONCE = 64  # images decoded before they are looked at


@dataclass(frozen=True)
class Side:
    """Images with what is known of them, numbered through.

    Args:
        sets: the image sets that they lie in.
        images: of each, the place of its set and its record.
        label_by: the column that classes are taken by, `diagnosis` or `malignant`.
    """

    sets: tuple[ImageSet, ...]
    images: tuple[tuple[int, Record], ...]
    label_by: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def paths(self) -> list[Path]:
        """Where the images lie."""
        return [self.sets[place].path(record) for place, record in self.images]

    @property
    def records(self) -> list[Record]:
        """What metadata.csv says of each."""
        return [record for _, record in self.images]

    @property
    def classes(self) -> NDArray[np.str_]:
        """The class of each, blank where unknown."""
        return np.array([record.class_name(self.label_by) for record in self.records], dtype=np.str_)

    @property
    def groups(self) -> NDArray[np.str_]:
        """The patient, lesion or near-duplicates that each belongs to."""
        return np.array([f"{place}/{record.group}" for place, record in self.images], dtype=np.str_)

    def of_split(self, *names: str) -> "Side":
        """Those of some splits."""
        return Side(self.sets, tuple(pair for pair in self.images if pair[1].split in names), self.label_by)


def read_sides(synthetic: Sequence[Path], real: Path) -> tuple[Side, Side]:
    """The generated images of all sets, and the real ones of the splits train, val and test.

    Classes are diagnoses where every generated image has one, else benign and malignant.

    Args:
        synthetic: folders of generated sets.
        real: folder of the set that their generator was fitted on.

    Returns:
        The synthetic side, and the real one.

    Raises:
        InputError: a set is broken or given twice, its images are of the other origin, or there is no train split.
    """
    if twice := [str(folder) for folder, count in Counter(synthetic).items() if count > 1]:
        raise InputError(f"--synthetic {twice[0]}: it is given twice.")
    sets = tuple(manifest.read(folder) for folder in synthetic)
    of_real = manifest.read(real)
    for flag, wanted, some in (("synthetic", "synthetic", sets), ("real", "real", (of_real,))):
        for images in some:
            for record in images.records:
                if record.origin != wanted:
                    raise InputError(
                        f"--{flag} {images.root}: image {record.image_id} is of origin {record.origin}; "
                        f"give sets of {wanted} images only."
                    )
    if not of_real.split("train"):
        raise InputError(f"--real {real}: no image in its train split, which the generated ones are compared with.")
    pairs = tuple((place, record) for place, images in enumerate(sets) for record in images.records)
    label_by = "diagnosis" if all(record.diagnosis for _, record in pairs) else "malignant"
    known = tuple((0, record) for record in of_real.records if record.split != "unused")
    return Side(sets, pairs, label_by), Side((of_real,), known, label_by)


def foreign(synthetic: Side, real: Side) -> tuple[str, ...]:
    """Names of the generated sets whose generator is not known to have been fitted on the real set's train split."""
    ours = manifest.train_split_sha256(real.sets[0].records)
    fitted_on = {
        images.root.name: {record.extra.get("train_split_sha256") for record in images.records}
        for images in synthetic.sets
    }
    return tuple(name for name, hashes in fitted_on.items() if hashes != {ours})


def read_images(side: Side, what: str) -> Iterator[RGB]:
    """The images in their order, each once, uint8 `[H, W, 3]`; the next ones are decoded meanwhile.

    Args:
        side: whose.
        what: they are read for, as the progress bar says it.

    Raises:
        BrokenImageError: a file is missing, incomplete or not an image.
    """
    paths = side.paths
    with ThreadPoolExecutor(cores()) as pool, tqdm(total=len(paths), desc=what, unit="image", delay=1) as bar:
        for start in range(0, len(paths), _AT_ONCE):
            for image in pool.map(read_rgb, paths[start : start + _AT_ONCE]):
                yield image
                bar.update()


def square(image: RGB, size: int) -> RGB:
    """The centre of an image `[H, W, 3]` as a square of `size` pixels."""
    image = fit_short_side(image, size)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]
