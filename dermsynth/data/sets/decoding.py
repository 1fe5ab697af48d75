"""The bytes of a JPEG or PNG become pixels, upright, 8-bit and no larger than needed, or are refused.

Pillow and OpenCV forgive much: OpenCV fills the missing part of a truncated JPEG with grey and says nothing. So
completeness and size are checked on the bytes before anything is decoded.
"""

import io
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dermsynth.errors import BrokenImageError

RGB = NDArray[np.uint8]

# No camera of dermatology comes near it; a file of a few bytes that declares more wants to fill the memory.
MAX_PIXELS = 120_000_000
# The widest panoramas have 10; resized by its short side, a line of pixels would fill the memory.
MAX_ASPECT = 20
# The most that a black-and-white PNG reaches, deflated a thousand times.
MAX_PIXELS_A_BYTE = 10_000
# libjpeg scales while it decodes; a 24-megapixel photograph comes out in half the time at an eighth.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with a preview behind it
_PNG_END = b"IEND\xaeB`\x82"
_END_OF_IMAGE = 0xD9
# libjpeg fills what it cannot read and only says so.
_DAMAGE = re.compile(r"premature end|bad Huffman|corrupt JPEG data", re.I)
# Some cameras pad the end with a few bytes, which harms nothing; but so ends a scan that lost its place, too.
_PADDED = re.compile(r"Corrupt JPEG data: (\d{1,2}) extraneous bytes before marker 0xd9", re.I)
_LISTENING = threading.Lock()


def decode(data: bytes, where: object, cover: int | None = None) -> RGB:
    """The picture in a file's bytes, turned upright by its EXIF orientation; transparency is dropped.

    Args:
        data: of a JPEG or PNG of any depth, grey, colour or CMYK, whatever its name ends in.
        where: the file, for messages.
        cover: a JPEG is decoded at the smallest scale whose short side has this many pixels; in full if not given.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        BrokenImageError: incomplete, damaged, larger than `MAX_PIXELS`, thinner than `MAX_ASPECT`, or neither JPEG nor
            PNG.
    """
    if not is_complete(data):
        raise BrokenImageError(where, f"truncated ({len(data)} bytes, no end-of-image marker). Download it again.")
    header = _header(data, where)
    flag = cv2.IMREAD_COLOR
    if cover and header.format in _JPEG:
        flag = next((_REDUCED[n] for n in _REDUCED if min(header.size) >= n * cover), flag)
    if header.format not in _JPEG:
        return _pixels(data, where, flag)
    with _heard() as said:
        image = _pixels(data, where, flag)
    if damage := next((line for line in said if _DAMAGE.search(line) and not _only_padding(line, data)), None):
        raise BrokenImageError(where, f"damaged ({damage}). Download it again.")
    return image


def decode_trusted(data: bytes, where: object, expected: tuple[int, int] | None = None) -> RGB:
    """The same for an image of a set, without the slower checks if it is a PNG: training reads millions of them.

    Args:
        data: the file's bytes.
        where: the file, for messages.
        expected: its width and height in metadata.csv; a PNG is compared with them before it is decoded.

    Raises:
        BrokenImageError: see `decode`; or it is of another size.
    """
    if not data.endswith(_PNG_END):
        image = decode(data, where)
        _refuse_other_size((image.shape[1], image.shape[0]), expected, where)
        return image
    if size := png_size(data):
        refuse_size(*size, len(data), where)
        _refuse_other_size(size, expected, where)
    else:  # the end of a PNG behind something else
        return decode(data, where)
    return _pixels(data, where, cv2.IMREAD_COLOR)


def refuse_size(width: int, height: int, size: int, where: object) -> None:
    """Raise BrokenImageError if a header declares what no photograph has.

    More pixels than we take, or than a file of `size` bytes can hold; or a side many times as long as the other.
    """
    if width * height > MAX_PIXELS:
        raise BrokenImageError(where, f"declares {width} × {height} pixels; more than {MAX_PIXELS:,} are not decoded.")
    if width * height > MAX_PIXELS_A_BYTE * size:
        raise BrokenImageError(where, f"declares {width} × {height} pixels in {size} bytes. Download it again.")
    _refuse_thin(width, height, where)


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, without decoding it; None if it is incomplete or another format."""
    if not (data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") and data.endswith(_PNG_END)):
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _only_padding(line: str, data: bytes) -> bool:
    """Whether libjpeg speaks of bytes before the end-of-image marker that are 0x00 or 0xFF all, as a camera pads."""
    found = _PADDED.search(line)
    end = _end_of_image(data)
    return bool(found and end is not None and not data[max(0, end - int(found[1])) : end].strip(b"\x00\xff"))


def is_complete(data: bytes) -> bool:
    """Whether a PNG or JPEG has its end marker; True for other formats, which are not judged here."""
    if data.startswith(b"\x89PNG"):
        return _PNG_END in data[-1024:]
    return not data.startswith(b"\xff\xd8") or _end_of_image(data) is not None


def _end_of_image(data: bytes) -> int | None:
    """Where a JPEG's end-of-image marker begins; None if it has none.

    Segments are walked from the start, as the marker also ends the thumbnail in a JPEG's header.
    """
    array = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(array[:-1] == 0xFF)
    kinds = array[at + 1]
    # In compressed data 0xFF is followed by 0x00 (a literal 0xFF) or by a restart marker; else a segment begins.
    at = at[(kinds != 0x00) & (kinds != 0xFF) & ((kinds < 0xD0) | (kinds > 0xD7))]
    position = 2
    while (index := int(np.searchsorted(at, position))) < len(at):
        marker = int(at[index])
        if data[marker + 1] == _END_OF_IMAGE:
            return marker
        # The length counts its own two bytes; a smaller one is damage, and must not stop the walk.
        position = marker + 2 + max(2, int.from_bytes(data[marker + 2 : marker + 4], "big"))
    return None


def _header(data: bytes, where: object) -> Image.Image:
    """Format and size by Pillow, which also checks a PNG's checksums: OpenCV passes over some damage."""
    try:
        # Our own limit is below the one at which Pillow raises, and above the one at which it warns.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        refuse_size(*image.size, len(data), where)
        if image.format == "PNG":
            image.verify()
    except UnidentifiedImageError as error:
        raise BrokenImageError(where, f"not a JPEG or PNG image ({len(data)} bytes). Download it again.") from error
    except Image.DecompressionBombError as error:
        raise BrokenImageError(where, f"declares too many pixels; more than {MAX_PIXELS:,} are not decoded.") from error
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and its own, by format
        raise BrokenImageError(where, f"damaged ({error}). Download it again.") from error
    return image


def _refuse_other_size(size: tuple[int, int], expected: tuple[int, int] | None, where: object) -> None:
    if expected and size != expected:
        raise BrokenImageError(
            where,
            f"{size[0]} × {size[1]} pixels where metadata.csv says {expected[0]} × {expected[1]}. "
            "Prepare the set again.",
        )


def _refuse_thin(width: int, height: int, where: object) -> None:
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BrokenImageError(
            where, f"{width} × {height} pixels; one side of a photograph is at most {MAX_ASPECT} times the other."
        )


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What libjpeg says on the process's stderr, by lines, filled when the block ends; OpenCV has no other way to it.

    What others say meanwhile is passed on.
    """
    said: list[str] = []
    with _LISTENING, tempfile.TemporaryFile() as heard:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            heard.seek(0)
            for line in heard.read().decode(errors="replace").splitlines():
                if "JPEG" in line:
                    said.append(line.strip())
                else:
                    print(line, file=sys.stderr)


def _pixels(data: bytes, where: object, flag: int) -> RGB:
    try:
        # Each flag turns the image upright by its EXIF orientation and makes it 8-bit BGR without alpha.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise BrokenImageError(where, f"not an image that OpenCV can decode ({len(data)} bytes). Download it again.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
