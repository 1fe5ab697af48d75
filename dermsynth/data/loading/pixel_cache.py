"""Decoded images at the size that a model trains on, in memory-mapped files: read without decoding.

Decoding a PNG and shrinking it costs several times what augmentation does, and gives the same pixels in every epoch
(docs/performance.md). The files are made once, before training, and shared by all its processes through the page
cache. Nothing is ever changed in them: other images or another size are another file. Of several runs on a machine that
want the same file, one makes it while the others wait.
"""

import hashlib
import itertools
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import cores, fit_short_side, fitted_shape, read_rgb
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError
from dermsynth.files import make_folder, whole_file

_AT_ONCE = 256


class PixelCache:
    """The images of one or more files, numbered through.

    Args:
        folder: where the files lie, or will; on a fast disk of this machine.
        parts: images of one set each, with their records; a part is a file.
        size: pixels of the short side.
    """

    def __init__(self, folder: Path, parts: Sequence[Sequence[tuple[Path, Record]]], size: int) -> None:
        parts = [part for part in parts if part]
        self._files = [folder / _file_name([record for _, record in part], size) for part in parts]
        shapes = [_shapes([record for _, record in part], size) for part in parts]
        for file, part, part_shapes in zip(self._files, parts, shapes, strict=True):
            if not _is_whole(file, part_shapes):
                _build_once(file, part, part_shapes, size)
        self._part = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self._shapes = np.concatenate(shapes)
        self._starts = np.concatenate([np.cumsum(lengths) - lengths for lengths in map(_lengths, shapes)])
        self._open()

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> RGB:
        """The image with this number, uint8 `[H, W, 3]`; a copy."""
        height, width = self._shapes[index]
        start = self._starts[index]
        return np.array(self._maps[self._part[index]][start : start + height * width * 3]).reshape(height, width, 3)

    def __getstate__(self) -> dict[str, object]:
        # A loader process that is spawned maps the files itself; pickled, they would be sent to it.
        return {name: value for name, value in vars(self).items() if name != "_maps"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        self._maps = [np.memmap(file, np.uint8, "r") for file in self._files]


def _file_name(records: Sequence[Record], size: int) -> str:
    what = hashlib.sha256(f"{size} {' '.join(record.sha256 for record in records)}".encode())
    return f"{size}px-{what.hexdigest()[:24]}.rgb"


def _shapes(records: Sequence[Record], size: int) -> NDArray[np.int64]:
    return np.array([fitted_shape(record.height, record.width, size) for record in records], np.int64)


def _lengths(shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    return shapes.prod(axis=1) * 3


def _is_whole(file: Path, shapes: NDArray[np.int64]) -> bool:
    # Of another size it is what a power failure or a full disk left of it.
    return file.is_file() and file.stat().st_size == _lengths(shapes).sum()


def _build_once(file: Path, part: Sequence[tuple[Path, Record]], shapes: NDArray[np.int64], size: int) -> None:
    """Decode a part, unless another process just does."""
    make_folder(file.parent)
    with _one_at_a_time(file, f"data.pixel_cache: another process makes {file}; waiting for it.") as locked:
        if locked:  # so nobody writes these any more: their processes were killed
            for left_over in file.parent.glob(f".{file.name}.*.part"):
                left_over.unlink(missing_ok=True)
        if not _is_whole(file, shapes):
            _build(file, part, shapes, size)


@contextmanager
def _one_at_a_time(file: Path, waiting: str) -> Iterator[bool]:
    """A block that one process at a time is in, of all that make the same file.

    The lock is on an empty file beside it, `.NAME.lock`, which stays. It ends with its process, however that ends.

    Args:
        file: what is made; its folder exists.
        waiting: what is printed where another process is in the block.

    Yields:
        whether there is a lock: some shared disks have none, and then several processes may be in the block.
    """
    # The other kind of lock that it knows would outlive a process that is killed.
    lock = FileLock(file.with_name(f".{file.name}.lock"), fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(waiting, file=sys.stderr, flush=True)
            lock.acquire()
    except (OSError, NotImplementedError):
        pass  # what is wrong with the folder is said when the file itself is written
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _build(file: Path, part: Sequence[tuple[Path, Record]], shapes: NDArray[np.int64], size: int) -> None:
    """Decode a part; the file appears when it is whole."""
    needed, free = int(_lengths(shapes).sum()), shutil.disk_usage(file.parent).free
    if needed > free:
        raise InputError(
            f"data.pixel_cache: {file.parent} needs {needed / 1e9:.1f} GB for {len(part)} images and has "
            f"{free / 1e9:.1f} GB left. Give another folder, or train without it."
        )

    def decode(job: tuple[Path, Record]) -> RGB:
        path, record = job
        return fit_short_side(read_rgb(path, (record.width, record.height)), size)

    jobs = iter(tqdm(part, f"decode at {size}", unit="image", mininterval=1))
    # Threads will do: OpenCV lets go of the interpreter while it decodes.
    with whole_file(file) as out, ThreadPoolExecutor(cores()) as pool:
        while some := list(itertools.islice(jobs, _AT_ONCE)):
            for image in pool.map(decode, some):
                out.write(image.data)
