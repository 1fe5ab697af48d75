"""What the tests of broken and hostile input share: a small ISIC 2020 of one picture, and its way through `prepare`."""

import struct
import zlib

from dermsynth.tools.prepare import prepare
from tests.data.prepare.layouts.helpers import COLUMNS_2020
from tests.data.sets.test_decoding import colours, encoded, jpeg
from tests.data.sets.test_dicom import dicom

COUNT = 12
VICTIM = "ISIC_0000005"
PICTURE = colours(shape=(24, 32, 3))
JPEG, PNG = jpeg(PICTURE), encoded(PICTURE, "PNG")
DICOM = dicom(PICTURE[:, :, 0].copy())


def table():
    rows = [
        f"ISIC_{n:07d},IP_{n},female,40,torso," + ("melanoma,malignant,1" if n % 2 else "nevus,benign,0")
        for n in range(COUNT)
    ]
    return "\n".join([COLUMNS_2020, *rows]) + "\n"


def go(source, out, **arguments):
    fractions = (0.5, 0.25, 0.25)
    # Its pictures are one, moved by a few pixels, which would join all patients to one group.
    flags = {"size": 16, "processes": 1, "max_broken": 0.5, "fractions": fractions, "near_duplicates": False}
    prepare([source], out, **{**flags, **arguments})


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, data=b"", depth=8, colour=2, more=b""):
    """A PNG by hand, of whatever it declares."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(data)) if data is not None else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + data + chunk(b"IEND", b"")
