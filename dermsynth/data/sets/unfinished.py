"""An image set that is being generated: the plan that it follows, and images that are written while others are made.

Its folder has the file `BEGUN`, which holds the plan, and no `metadata.csv` yet. Every image is written whole or not at
all, so that whatever ends the process, the same plan is resumed from the images that are there.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsynth import made_from
from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import Stored, cores, write_png
from dermsynth.data.sets.manifest import BEGUN
from dermsynth.errors import InputError
from dermsynth.files import make_folder, read_json, write_atomically

IMAGES = "images"


@dataclass(frozen=True)
class Drawn:
    """An image to be written.

    Args:
        index: of the image among all.
        path: where to.
        pixels: uint8 `[H, W, 3]`, RGB.
        notes: text by keyword.
    """

    index: int
    path: Path
    pixels: RGB
    notes: Mapping[str, str]


def begin(root: Path, settings: Mapping[str, Any]) -> int:
    """Claim a folder for a plan, or find it claimed.

    Args:
        root: the set's folder.
        settings: the plan, which is all that decides the images, as JSON can hold it.

    Returns:
        How many images of this plan are there.

    Raises:
        InputError: it holds images of another plan, or some that predict did not make.
    """
    mark, images = root / BEGUN, root / IMAGES
    plan: dict[str, Any] = json.loads(json.dumps(settings))  # a tuple comes back as a list
    if images.exists() and not mark.exists():
        raise InputError(f"--run {root}: it holds images that predict did not make. Choose another folder.")
    there = sum(1 for _ in images.rglob("*.png"))
    if there and mark.stat().st_size == 0:
        # Before plans were noted: nobody can say what these images are of.
        shutil.rmtree(images)
        there = 0
    if there:
        noted = read_json(mark, "Remove the folder.")
        if changes := made_from.changes({"settings": noted}, {"settings": plan}):
            raise InputError(
                f"--run {root}: it holds {there:,} images of another plan ({'; '.join(changes)}). Give the command "
                "that began them, or another folder."
            )
    make_folder(root)
    write_atomically(mark, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
    make_folder(images)
    for left in (*root.glob(".*.part"), *images.rglob(".*.part")):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return there


class BackgroundWriter:
    """Writes the images of one batch while the next one is made.

    No more than one batch waits, so that a slow disk slows the device down instead of filling the memory.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(4, cores()), thread_name_prefix="png")
        self._waiting: list[tuple[int, Future[Stored]]] = []
        #: What is on disk, by the images' indices.
        self.stored: dict[int, Stored] = {}

    def write(self, batch: Iterable[Drawn]) -> None:
        """Begin to write a batch, when the one before is on disk.

        Raises:
            InputError: one of the batch before could not be written.
        """
        self.finish()
        self._waiting = [
            (image.index, self._pool.submit(write_png, image.path, image.pixels, image.notes)) for image in batch
        ]

    def finish(self) -> None:
        """Wait until all is on disk.

        Raises:
            InputError: something could not be written.
        """
        waiting, self._waiting = self._waiting, []
        for index, future in waiting:
            self.stored[index] = future.result()
