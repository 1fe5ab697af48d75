"""Decode an image as small as the target allows, resize it, write it, read it back.

OpenCV and Pillow are imported here and nowhere else in the room. OpenCV fills the missing part of a truncated
JPEG with grey and says nothing, so completeness is checked on the bytes before they are decoded.
"""

import hashlib
import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dermsynth.errors import InputError

RGB = NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png")
# libjpeg scales while it decodes; a 24-megapixel photograph comes out five times sooner at an eighth.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with a preview behind it
_PNG_END = b"IEND\xaeB`\x82"
# In compressed data 0xFF is followed by 0x00 (a literal 0xFF) or by a restart marker; else a segment begins.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_END_OF_IMAGE = 0xD9


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of an image file that prepare wrote: hash of its bytes, width and height in pixels."""

    sha256: str
    width: int
    height: int


def read_rgb(path: Path) -> RGB:
    """An image of a prepared set, uint8 `[H, W, 3]`.

    Raises:
        InputError: the file is missing, incomplete or not an image.
    """
    data = _read_bytes(path)
    _refuse_truncated(data, path)
    return _decode(data, path, cv2.IMREAD_COLOR)


def load_resized(path: Path, size: int) -> RGB:
    """A source photograph, upright, with its short side resized to `size` and the aspect kept.

    Args:
        path: JPEG or PNG of any depth, grey or colour.
        size: pixels of the short side.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        InputError: the file is missing, truncated or not an image.
    """
    data = _read_bytes(path)
    _refuse_truncated(data, path)
    header = _header(data, path)
    flag = cv2.IMREAD_COLOR
    if header.format in _JPEG:
        flag = next((_REDUCED[n] for n in _REDUCED if min(header.size) >= n * size), flag)
    return fit_short_side(_decode(data, path, flag), size)


def fit_short_side(image: RGB, size: int) -> RGB:
    """The image `[H, W, 3]` with its short side resized to `size` and the aspect kept."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    if scale == 1:
        return image
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    # Area averaging is for shrinking only; enlarged it would be blocks.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, shape, interpolation=how), dtype=np.uint8)


def write_png(path: Path, image: RGB) -> Stored:
    """Write a PNG so that a kill at any moment leaves the whole file or none.

    Args:
        path: where to; its folder exists.
        image: uint8 `[H, W, 3]`, RGB.
    """
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    data = encoded.tobytes()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
    return Stored(hashlib.sha256(data).hexdigest(), image.shape[1], image.shape[0])


def stored(path: Path) -> Stored | None:
    """What a PNG on disk is, without decoding it; None if it is missing or incomplete."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    if not data.endswith(_PNG_END):
        return None
    width, height = Image.open(io.BytesIO(data)).size
    return Stored(hashlib.sha256(data).hexdigest(), width, height)


def is_complete(data: bytes) -> bool:
    """Whether a PNG or JPEG has its end marker; True for other formats, which are not judged here.

    Segments are walked from the start, as the marker also ends the thumbnail in a JPEG's header.
    """
    if data.startswith(b"\x89PNG"):
        return _PNG_END in data[-1024:]
    if not data.startswith(b"\xff\xd8"):
        return True
    position = 2
    while marker := _NEXT_MARKER.search(data, position):
        kind = marker[1][0]
        if kind == _END_OF_IMAGE:
            return True
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def use_one_thread() -> None:
    """Keep OpenCV to one thread: for worker processes, which are as many as there are cores."""
    cv2.setNumThreads(1)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def _refuse_truncated(data: bytes, path: Path) -> None:
    if not is_complete(data):
        raise InputError(f"{path}: truncated ({len(data)} bytes, no end-of-image marker). Download it again.")


def _header(data: bytes, path: Path) -> Image.Image:
    """Format and size by Pillow, which also decodes what is not a JPEG: OpenCV passes over some damage."""
    try:
        # A photograph above Pillow's warning limit is large, not suspect; above twice that it is an error.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data))
        if image.format not in _JPEG:
            image.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image ({len(data)} bytes). Download it again.") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and its own, by format
        raise InputError(f"{path}: damaged ({error}). Download it again.") from error
    return image


def _decode(data: bytes, path: Path, flag: int) -> RGB:
    try:
        # Each flag turns the image upright by its EXIF orientation and makes it 8-bit BGR without alpha.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV can decode ({len(data)} bytes). Download it again.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
