"""What is kept of a side's images once they were read: features and thumbnails, and no file is read again."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dermsynth.audit.features import Extractor, Features
from dermsynth.audit.nearest import Thumbnails, thumbnails, turned
from dermsynth.audit.sides import Side, read_images, square
from dermsynth.data.sets.views import VIEWS
from dermsynth.errors import InputError

_BATCH = 64


@dataclass(frozen=True)
class Seen:
    """Arrays on the N images of a side.

    Args:
        side: whose images they are.
        views: features of the images as they are, and where asked for in the other seven views, float32 `[V, N, D]`.
        thumbnails: uint8 `[M, SIDE, SIDE, 3]`: the centre of each image, of a long one its ends as well.
        owners: of which image each thumbnail is, int64 `[M]`, sorted; an image's first thumbnail is its centre.
    """

    side: Side
    views: Features
    thumbnails: Thumbnails
    owners: NDArray[np.int64]

    @property
    def features(self) -> Features:
        """Of the images as they are, `[N, D]`."""
        return self.views[0]

    @property
    def centres(self) -> Thumbnails:
        """The thumbnail of each image's centre, `[N, SIDE, SIDE, 3]`."""
        return self.thumbnails[np.unique(self.owners, return_index=True)[1]]


def see(side: Side, extractor: Extractor, all_views: bool = False) -> Seen:
    """Read the images of a side.

    Args:
        side: at least one image.
        extractor: of features.
        all_views: features of all eight views, as the search for copies wants them of the train images.

    Raises:
        InputError: some features are NaN or infinite.
    """
    images = read_images(side, f"{len(side):,} images, features by {extractor.name}")
    features, small, owners = list[Features](), list[NDArray[np.uint8]](), list[int]()
    number = itertools.count()
    while batch := list(itertools.islice(images, _BATCH)):
        for image in batch:
            of_image = thumbnails(image)
            small += of_image
            owners += [next(number)] * len(of_image)
        squares = np.stack([square(image, extractor.size) for image in batch])
        views = range(VIEWS if all_views else 1)
        features.append(np.stack([_extract(extractor, turned(squares, view)) for view in views]))
    return Seen(side, np.concatenate(features, axis=1), np.stack(small), np.array(owners))


def _extract(extractor: Extractor, squares: NDArray[np.uint8]) -> Features:
    with torch.inference_mode():
        features = extractor(squares).float().cpu().numpy()
    if not np.isfinite(features).all():
        raise InputError(f"--features {extractor.name}: some features are NaN or infinite. Give another extractor.")
    return features
