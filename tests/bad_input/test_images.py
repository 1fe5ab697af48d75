"""Image files that are broken, hostile or only odd."""

import csv
import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from dermsynth.data.sets import manifest
from tests.bad_input.helpers import (
    COUNT,
    DICOM,
    JPEG,
    PICTURE,
    PNG,
    VICTIM,
    chunk,
    go,
    png,
    table,
)
from tests.data.sets.test_decoding import encoded, jpeg
from tests.data.sets.test_dicom import dicom


def resized_header(data, width, height):
    """The JPEG with another size in its frame header."""
    start = data.index(b"\xff\xc0")
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


def other(kind, **options):
    return encoded(PICTURE, kind, **options)


def spoilt(data, start, end, by=0):
    return data[:start] + bytes([by]) * (end - start) + data[end:]


BROKEN = {
    **{f"jpeg-cut-{n}": (JPEG[:n], "truncated") for n in (3, 4, 8, 20, 40, 160, 300, 500, 620, 700, len(JPEG) // 2)},
    **{f"jpeg-cut-{n}": (JPEG[:n], "truncated") for n in (-1, -2, -3, -10, -100)},
    **{f"jpeg-cut-{n}": (JPEG[:n], "not a JPEG") for n in (0, 1)},
    "jpeg-start-only": (JPEG[:2], "truncated"),
    "jpeg-start-and-end": (b"\xff\xd8\xff\xd9", "not a JPEG|damaged"),
    "jpeg-twice-the-start": (b"\xff\xd8" * 50, "truncated"),
    "jpeg-tail-of-zeros": (JPEG[:-200] + bytes(200), "truncated"),
    "jpeg-tail-of-ones": (JPEG[:-200] + b"\xff" * 200, "truncated"),
    "jpeg-no-frame": (JPEG.replace(b"\xff\xc0", b"\xff\xe5", 1), "damaged|not an image|declares|not a JPEG"),
    "jpeg-progressive-cut": (jpeg(PICTURE, progressive=True)[:-60], "truncated"),
    "jpeg-grey-cut": (jpeg(PICTURE[:, :, 0])[:-40], "truncated"),
    "jpeg-cmyk-cut": (jpeg(Image.fromarray(PICTURE).convert("CMYK"))[:-40], "truncated"),
    "jpeg-header-missing": (JPEG[2:], "not a JPEG"),
    "jpeg-of-65500": (resized_header(JPEG, 65500, 65500), "declares"),
    "jpeg-of-30000": (resized_header(JPEG, 30000, 30000), "declares"),
    "jpeg-of-10000": (resized_header(JPEG, 10000, 10000), "declares 10000 × 10000 pixels in"),
    "jpeg-of-no-width": (resized_header(JPEG, 0, 24), "not|damaged"),
    **{f"png-cut-{n}": (PNG[:n], "truncated") for n in (4, 8, 12, 33, 40, 60, len(PNG) // 2, -1, -4, -8, -12)},
    "png-of-2-billion": (png(2**31 - 1, 2**31 - 1), "declares"),
    "png-of-60000": (png(60000, 60000), "declares"),
    "png-of-12000": (png(12000, 12000), "declares 12000 × 12000 pixels;"),
    "png-of-10000": (png(10000, 10000), "declares 10000 × 10000 pixels in"),
    "png-wide": (png(2**30, 1), "declares"),
    "png-thin": (encoded(np.zeros((1, 1_000_000, 3), np.uint8), "PNG"), "1000000 × 1 pixels; one side"),
    "png-of-nothing": (png(0, 0), "not|damaged"),
    "png-of-no-height": (png(8, 0), "not|damaged"),
    "png-without-data": (png(8, 8, None), "not|damaged"),
    "png-odd-depth": (png(8, 8, bytes(200), depth=7), "not|damaged"),
    "png-odd-colour": (png(8, 8, bytes(200), colour=5), "not|damaged"),
    "png-checksum-of-header": (spoilt(PNG, 29, 33), "not|damaged"),
    "png-checksum-of-data": (spoilt(PNG, len(PNG) - 16, len(PNG) - 12), "damaged"),
    "png-zeros-inside": (spoilt(PNG, 60, 200), "damaged"),
    "png-text-bomb": (
        png(8, 8, bytes(200), more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))),
        "damaged",
    ),
    "zeros": (bytes(5000), "not a JPEG"),
    "ones": (b"\xff" * 5000, "not a JPEG"),
    "text": (b"not an image\n", "not a JPEG"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not a JPEG"),
    "json": (b'{"detail": "not found"}', "not a JPEG"),
    "table": (table().encode(), "not a JPEG"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not a JPEG"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not a JPEG"),
    "pdf": (b"%PDF-1.4\n%%EOF", "not a JPEG"),
    "zip": (b"PK\x03\x04" + bytes(100), "not a JPEG"),
    "gzip": (zlib.compress(JPEG), "not a JPEG"),
    "script": (b"#!/bin/sh\nexit 1\n", "not a JPEG"),
    **{f"a-{kind}": (other(kind), "not a JPEG") for kind in ("GIF", "BMP", "TIFF", "PPM", "WEBP", "ICO", "EPS")},
    **{f"dicom-cut-{n}": (DICOM[:n], "damaged DICOM") for n in (132, 140, 200, 400, -200, -1)},
    "dicom-frames": (dicom(PICTURE[:, :, 0].copy(), NumberOfFrames=9), "holds 9 frames"),
    "dicom-of-60000": (dicom(PICTURE[:, :, 0].copy(), Rows=60000, Columns=60000), "declares"),
    "dicom-preamble": (bytes(128) + b"DIC", "not a JPEG"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_put_in_quarantine_and_the_others_make_the_set(source, out, name):
    data, reason = BROKEN[name]
    (source / "train" / f"{VICTIM}.jpg").write_bytes(data)
    go(source, out)
    assert_only_the_victim_is_missing(out, reason)


def assert_only_the_victim_is_missing(out, reason):
    image_set = manifest.read(out)
    assert {r.image_id for r in image_set.records} == {f"ISIC_{n:07d}" for n in range(COUNT)} - {VICTIM}
    with (out / "quarantine.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["image_id"] == VICTIM
    assert re.search(reason, row["reason"]), row["reason"]
    assert sorted(p.name for p in (out / "images").iterdir()) == sorted(f"{r.image_id}.png" for r in image_set.records)


@pytest.mark.parametrize("kind", ["folder", "pipe", "empty", "sparse"])
def test_what_is_no_file_of_bearable_size_is_put_in_quarantine(source, out, kind):
    path = source / "train" / f"{VICTIM}.jpg"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(0 if kind == "empty" else 10**12)
    go(source, out)
    assert_only_the_victim_is_missing(out, "cannot be read|not a JPEG|an image has no more than")


ODD = {
    "png-named-jpg": (PNG, "jpg"),
    "jpeg-named-png": (JPEG, "png"),
    "dicom-named-jpg": (DICOM, "jpg"),
    "upper-case": (JPEG, "JPG"),
    "bytes-behind-the-end": (JPEG + bytes(500), "jpg"),
    "two-pictures": (JPEG + JPEG, "jpg"),
    "exif-of-rubbish": (JPEG[:2] + b"\xff\xe1\x00\x10Exif\0\0" + b"\xfe" * 8 + JPEG[2:], "jpg"),
    "a-comment": (JPEG[:2] + b"\xff\xfe\x00\x08\xff\xd9\xff\xd9ab" + JPEG[2:], "jpg"),
    "fill-bytes": (JPEG[:-2] + b"\xff\xff\xff\xd9", "jpg"),
    "one-pixel": (encoded(PICTURE[:1, :1], "PNG"), "png"),
    "one-row": (encoded(PICTURE[:1, :20], "PNG"), "png"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_an_image(source, out, name):
    data, suffix = ODD[name]
    (source / "train" / f"{VICTIM}.jpg").unlink()
    (source / "train" / f"{VICTIM}.{suffix}").write_bytes(data)
    go(source, out)
    assert len(manifest.read(out).records) == COUNT
    assert not (out / "quarantine.csv").exists()


def test_bombs_take_no_memory(tmp_path):
    """All of them in a process that may have little more than it begins with."""
    for name in BROKEN:
        if " × " in BROKEN[name][1] or "declares" in BROKEN[name][1] or "bomb" in name:
            (tmp_path / f"{name}.jpg").write_bytes(BROKEN[name][0])
    assert len(list(tmp_path.glob("*.jpg"))) >= 10
    program = """
import resource, sys
from pathlib import Path
from dermsynth.data.sets import images
from dermsynth.errors import BrokenImageError
import pydicom, pydicom.pixels
begin = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (begin + 100_000_000,) * 2)
for path in sorted(Path(sys.argv[1]).glob("*.jpg")):
    try:
        images.load(path, 16)
    except BrokenImageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(tmp_path.glob("*.jpg")))
