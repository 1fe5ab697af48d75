"""What a model sees of an image: uint8 `[H, W, 3]` in, float32 `[3, size, size]` in [-1, 1] out.

Augmentation is albumentations' and imported with the first one, as testing and generation have none.

Generated and real images go through the same pipeline. Nothing here needs the image to be larger than `size`, but a
smaller one is enlarged, and smoothly: repeated pixels would tell a classifier which set an image comes from.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermsynth.data.sets.images import fit_short_side
from dermsynth.data.sets.views import random_view, view

if TYPE_CHECKING:
    import albumentations as A

Augmentation = Literal["none", "dihedral", "standard"]


class Transform:
    """Resize, crop, augment and scale one image.

    Args:
        size: pixels of the square output.
        augmentation: `none` takes the centre; `dihedral` a random crop in one of the eight views that a lesion has
            (four rotations, mirrored or not); `standard` adds small changes of scale, position, colour and focus.
            With a latent cache `dihedral` shows the same views of the centre, so that of an image that is not square
            the ends are never seen.
    """

    def __init__(self, size: int, augmentation: Augmentation) -> None:
        self.size, self.augmentation = size, augmentation
        self._augment = None if augmentation == "none" else _augmentations(size, augmentation)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> Tensor:
        """The image as the model sees it; the same image and seed give the same result."""
        image = fit_short_side(image, self.size)
        if self._augment is None:
            return _scaled(_centre(image, self.size))
        image = np.moveaxis(view(np.moveaxis(image, -1, 0), random_view(seed)), 0, -1)
        self._augment.set_random_seed(seed)
        return _scaled(self._augment(image=np.ascontiguousarray(image))["image"])


def centre_views(image: NDArray[np.uint8], size: int, numbers: Sequence[int]) -> Tensor:
    """Some of the eight views of an image's centre, float32 `[V, 3, size, size]`: what a latent cache holds.

    Args:
        image: uint8 `[H, W, 3]`.
        size: its short side is resized to it.
        numbers: of the V views (`dermsynth.data.sets.views`).
    """
    centre = np.moveaxis(_centre(fit_short_side(image, size), size), -1, 0)
    return torch.stack([_scaled(np.moveaxis(view(centre, number), 0, -1)) for number in numbers])


def _augmentations(size: int, augmentation: Augmentation) -> "A.Compose":
    # Without it the import asks the package index for a newer version: no network unless asked.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    steps: list[A.BasicTransform] = [A.RandomCrop(size, size)]
    if augmentation == "standard":
        steps += [
            A.Affine(
                scale=(0.85, 1.2),
                translate_percent=(-0.06, 0.06),
                rotate=(-20, 20),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.8,
            ),
            A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.03, 0.03), p=0.8),
            A.GaussianBlur(blur_limit=(3, 5), p=0.1),
        ]
    return A.Compose(steps)


def _centre(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _scaled(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)
