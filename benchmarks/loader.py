"""How fast the training loader is against the Dataset that everyone writes: Pillow and albumentations.

    python -m benchmarks.loader

Both read the same image set of 512 × 768 pixels, cut and augment it alike to 224 × 224, and give batches of 32. Ours
runs with its cache of decoded images and without.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.drawn import image_set
from benchmarks.measure import in_turn, numbers_given, report, seconds
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.sets import manifest

SIZE, BATCH = 224, 32


class Plain(Dataset[tuple[Tensor, int]]):
    """The Dataset of a thousand tutorials, with the steps of `Transform(size, "standard")`."""

    def __init__(self, paths: list[Path], size: int = SIZE) -> None:
        self.paths = paths
        self.steps = A.Compose(
            [
                A.SmallestMaxSize(size, interpolation=cv2.INTER_AREA),
                A.RandomCrop(size, size),
                A.D4(p=1),
                A.Affine(
                    scale=(0.85, 1.2),
                    translate_percent=(-0.06, 0.06),
                    rotate=(-20, 20),
                    border_mode=cv2.BORDER_REFLECT_101,
                    p=0.8,
                ),
                A.ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.03, 0.03), p=0.8),
                A.GaussianBlur(blur_limit=(3, 5), p=0.1),
                A.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = np.array(Image.open(self.paths[index]).convert("RGB"))
        return self.steps(image=image)["image"], index % 2


def main() -> None:
    arguments = numbers_given(__doc__, images=128, rounds=5, workers=0)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "set")
        image_set(root, arguments.images, 768, 512)
        paths = [root / record.file_name for record in manifest.read(root).split("train")]
        usual = DataLoader(
            Plain(paths),
            BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=arguments.workers,
            persistent_workers=arguments.workers > 0,
        )
        build = [0.0]
        ways = {
            "plain Pillow": epoch(usual),
            "files": epoch(loader(root, arguments.workers, None)),
            "pixel cache": epoch(loader(root, arguments.workers, Path(folder, "cache"), build)),
        }
        for first in ways.values():  # workers start, pages are read
            first()
        medians = in_turn(ways, arguments.rounds)
        report(
            medians,
            "plain Pillow",
            "pixel cache",
            len(paths),
            ratio_without_cache=medians["plain Pillow"]["cpu"] / medians["files"]["cpu"],
            cache_build_ms_an_image=build[0] / len(paths) * 1000,
            workers=arguments.workers,
            rounds=arguments.rounds,
        )


def loader(
    root: Path, workers: int, cache: Path | None, build: list[float] | None = None
) -> DataLoader[dict[str, Tensor]]:
    """Our training loader; the time that it takes to make the cache goes into `build`."""
    made: list[DataLoader[dict[str, Tensor]]] = []

    def make() -> None:
        data = ClassificationData(
            real=root,
            classes=["NV", "MEL"],
            size=SIZE,
            batch_size=BATCH,
            augmentation="standard",
            num_workers=workers,
            pixel_cache=cache,
        )
        data.setup("fit")
        made.append(data.train_dataloader())

    with contextlib.redirect_stderr(io.StringIO()):
        taken = seconds(make)
    if build is not None:
        build[0] = taken[1]
    return made[0]


def epoch(batches: DataLoader[dict[str, Tensor]] | DataLoader[tuple[Tensor, int]]) -> Callable[[], None]:
    def run() -> None:
        for batch in batches:
            pixels = batch["pixel_values"] if isinstance(batch, dict) else batch[0]
            assert pixels.shape[1:] == (3, SIZE, SIZE)

    return run


if __name__ == "__main__":
    main()
