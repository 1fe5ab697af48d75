"""albumentations pipelines: uint8 `[H, W, 3]` in, float32 `[3, size, size]` in [-1, 1] out.

Generated and real images go through the same pipeline. Nothing here needs the image to be larger than `size`, but a
smaller one is enlarged, and smoothly: repeated pixels would tell a classifier which set an image comes from.
"""

import os
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermsynth.data.images import fit_short_side

# Without it the import asks the package index for a newer version: no network unless asked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

Augmentation = Literal["none", "dihedral", "standard"]


class Transform:
    """Resize, crop, augment and scale one image.

    Args:
        size: pixels of the square output.
        augmentation: `none` takes the centre; `dihedral` a random crop in one of the eight views that a lesion has
            (four rotations, mirrored or not); `standard` adds small changes of scale, position, colour and focus.
    """

    def __init__(self, size: int, augmentation: Augmentation) -> None:
        self.size = size
        steps: list[A.BasicTransform] = [A.CenterCrop(size, size)]
        if augmentation != "none":
            steps = [A.RandomCrop(size, size), A.D4(p=1)]
        if augmentation == "standard":
            steps += [
                A.Affine(
                    scale=(0.85, 1.2),
                    translate_percent=(-0.06, 0.06),
                    rotate=(-20, 20),
                    border_mode=cv2.BORDER_REFLECT_101,
                    p=0.8,
                ),
                A.ColorJitter(
                    brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.03, 0.03), p=0.8
                ),
                A.GaussianBlur(blur_limit=(3, 5), p=0.1),
            ]
        self._compose = A.Compose(steps)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> Tensor:
        """The image as the model sees it; the same image and seed give the same result."""
        self._compose.set_random_seed(seed)
        pixels = torch.from_numpy(np.ascontiguousarray(self._compose(image=fit_short_side(image, self.size))["image"]))
        return pixels.permute(2, 0, 1).float().div_(127.5).sub_(1)
