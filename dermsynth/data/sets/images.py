"""An image file of any source read as small as the target allows, resized, written into a set, read back."""

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dermsynth.data.sets import decoding, dicom, hdf5
from dermsynth.data.sets.decoding import RGB
from dermsynth.errors import BrokenImageError
from dermsynth.files import write_bytes_atomically

SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm")
# A 24-megapixel photograph of 16 bits, not compressed, has 144 million; what is larger is no image.
MAX_BYTES = 200_000_000

# The most pixels that a side is resized to; no model takes a fraction of it.
LARGEST_SIZE = 8192

# Processes and threads of our own are as many as there are cores. It must be said before OpenCV makes threads: a loader
# process that is forked afterwards would wait for them forever.
cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of an image file that prepare wrote: hash of its bytes, width and height in pixels."""

    sha256: str
    width: int
    height: int


def read_rgb(path: Path, expected: tuple[int, int] | None = None) -> RGB:
    """An image of a prepared set, uint8 `[H, W, 3]`.

    Args:
        path: of the file.
        expected: its width and height in metadata.csv.

    Raises:
        BrokenImageError: the file is missing, incomplete, not an image or of another size.
    """
    return decoding.decode_trusted(_read_bytes(path), path, expected)


def load(path: Path, cover: int, member: str = "") -> RGB:
    """A source photograph, upright, decoded as small as covers the target.

    Args:
        path: JPEG, PNG or DICOM of any depth, grey or colour; its bytes decide, not its name.
        cover: pixels that the short side must have, unless the photograph itself has fewer.
        member: of an HDF5 file, the key that holds the image's bytes.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        BrokenImageError: the file is missing, truncated or not an image.
        InputError: the package that reads its format is not installed.
    """
    where = f"{path}[{member}]" if member else path
    data = hdf5.read_member(path, member, MAX_BYTES) if member else _read_bytes(path)
    return (dicom.decode if dicom.is_dicom(data) else decoding.decode)(data, where, cover)


def fit_short_side(image: RGB, size: int) -> RGB:
    """The image `[H, W, 3]` with its short side resized to `size` and the aspect kept."""
    height, width = image.shape[:2]
    if min(height, width) == size:
        return image
    shape = fitted_shape(height, width, size)
    # Area averaging is for shrinking only; enlarged it would be blocks.
    how = cv2.INTER_AREA if size < min(height, width) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=how), dtype=np.uint8)


def fitted_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image whose short side is resized to `size`."""
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def write_png(path: Path, image: RGB, notes: Mapping[str, str] | None = None) -> Stored:
    """Write a PNG so that a kill at any moment leaves the whole file or none.

    Every image of every set, real or generated, is encoded here: the file tells nobody which it is, save by its notes.

    Args:
        path: where to; its folder exists.
        image: uint8 `[H, W, 3]`, RGB.
        notes: text by keyword, which any image viewer shows.

    Raises:
        InputError: the file cannot be written.
    """
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    data = encoded.tobytes()
    header = 33  # signature and IHDR, which must come first
    data = data[:header] + b"".join(_text_chunk(*note) for note in (notes or {}).items()) + data[header:]
    # Not synced: 400,000 waits for the disk. What a power failure cuts short has no end mark and is written again.
    write_bytes_atomically(path, data, sync=False)
    return Stored(hashlib.sha256(data).hexdigest(), image.shape[1], image.shape[0])


def stored(path: Path) -> Stored | None:
    """What a PNG on disk is, without decoding it; None if it is missing or incomplete."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    size = decoding.png_size(data)
    return Stored(hashlib.sha256(data).hexdigest(), *size) if size else None


def cores() -> int:
    """How many processor cores this process may use: a Slurm job or container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited for without end
            raise BrokenImageError(path, "cannot be read (not a file).")
        if status.st_size > MAX_BYTES:
            raise BrokenImageError(path, f"{status.st_size:,} bytes; an image has no more than {MAX_BYTES:,}.")
        return path.read_bytes()
    except OSError as error:
        raise BrokenImageError(path, f"cannot be read ({error.strerror}).") from error


def _text_chunk(keyword: str, text: str) -> bytes:
    """An uncompressed iTXt chunk (PNG 3, 11.3.3.4)."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
