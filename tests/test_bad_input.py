"""What broken and hostile input does: the right error or the right quarantine, nothing half-written, nothing outside.

Every test runs with a folder beside its own that nothing may open or change.
"""

import contextlib
import csv
import io
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermsynth.data import manifest
from dermsynth.data.modules import ClassificationData
from dermsynth.errors import InputError
from dermsynth.tools.prepare import prepare
from tests.builders import CLASSES, make_set
from tests.data.test_decoding import colours, encoded, jpeg
from tests.data.test_dicom import dicom

HEADER = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
COUNT = 12
VICTIM = "ISIC_0000005"
PICTURE = colours(shape=(24, 32, 3))
JPEG, PNG = jpeg(PICTURE), encoded(PICTURE, "PNG")
DICOM = dicom(PICTURE[:, :, 0].copy())

_opened: list[str] | None = None


def _watch(event, arguments):
    if _opened is not None and event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir"):
        _opened.extend(os.path.realpath(a) for a in arguments if isinstance(a, str | os.PathLike))


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def outside(tmp_path):
    """A folder that nobody was told of; it is neither opened nor changed."""
    global _opened
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.png").write_bytes(PNG)
    (folder / "table.csv").write_text(table())
    before = contents(folder)
    _opened = []
    yield folder
    seen, _opened = _opened, None
    assert not [path for path in seen if Path(path).is_relative_to(folder.resolve())]
    assert contents(folder) == before


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def table():
    rows = [
        f"ISIC_{n:07d},IP_{n},female,40,torso," + ("melanoma,malignant,1" if n % 2 else "nevus,benign,0")
        for n in range(COUNT)
    ]
    return "\n".join([HEADER, *rows]) + "\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "isic2020"
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text(table())
    for number in range(COUNT):
        (folder / "train" / f"ISIC_{number:07d}.jpg").write_bytes(JPEG)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "set"


def go(source, out, **arguments):
    fractions = (0.5, 0.25, 0.25)
    # Its pictures are one and the same, which would join all patients to one group.
    flags = {"size": 16, "processes": 1, "max_broken": 0.5, "fractions": fractions, "near_duplicates": False}
    prepare([source], out, **{**flags, **arguments})


def nothing_half_written(out):
    """No set that looks complete, and no file that is not whole."""
    if out.exists():
        assert not (out / "metadata.csv").exists()
        assert not list(out.rglob("*.part"))
        for path in out.rglob("*.png"):
            Image.open(path).load()


# ------------------------------------------------------------------------------------------------ image files


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, data=b"", depth=8, colour=2, more=b""):
    """A PNG by hand, of whatever it declares."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(data)) if data is not None else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + data + chunk(b"IEND", b"")


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
from dermsynth.data import images
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


# ------------------------------------------------------------------------------------------------ tables of a download


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


NAMES = ["../outside/secret", "/etc/passwd", "..", ".", "a/b", "a\\b", "..\\secret", "C:\\secret", "", " ", "a b", "~"]
NAMES += [".hidden", "-rf", "name\nsecond", "ISIC_ä", "ISIC_\u202e", "a:b", "*", "%2e%2e"]
ROW = f"{VICTIM},IP_5,female,40,torso,melanoma,malignant,1"
TABLES = {
    **{f"name-{name!r}": (replaced(f"\n{VICTIM},", f'\n"{name}",'), "train.csv, line .*image name") for name in NAMES},
    "name-nul": (replaced(VICTIM, "ISIC\0"), "train.csv"),
    "duplicate-row": (lambda text: text + ROW + "\n", "occurs twice"),
    "unknown-diagnosis": (replaced("melanoma", "wart"), "'wart'"),
    **{f"target-{t!r}": (replaced("malignant,1", f"malignant,{t}"), "target") for t in ("", "2", "yes", "-1", "1e0")},
    "age-in-words": (replaced(",40,", ",forty,"), "age_approx 'forty'"),
    **{f"no-{name}": (replaced(name, "x"), f"{name} is missing") for name in ("image_name", "patient_id", "target")},
    "cells-missing": (replaced(ROW, f"{VICTIM},IP_5"), "cells expected"),
    "cells-too-many": (replaced(ROW, ROW + ",1,2"), "cells expected"),
    "semicolons": (lambda text: text.replace(",", ";"), "is missing"),
    "tabs": (lambda text: text.replace(",", "\t"), "is missing"),
    "empty": (lambda text: "", "is missing"),
    "blank-lines": (lambda text: "\n\n\n", "is missing"),
    "header-only": (lambda text: HEADER + "\n", "hold no rows"),
    "image-missing": (lambda text: text + ROW.replace(VICTIM, "ISIC_9") + "\n", "missing: ISIC_9"),
    "open-quote": (replaced(ROW, '"' + ROW), "train.csv"),
    "endless-cell": (replaced("torso", "x" * 200_000), "not a CSV"),
    "latin-1": (lambda text: text.replace("torso", "Körper").encode("latin-1"), "UTF-8"),
    "utf-16": (lambda text: text.encode("utf-16"), "UTF-8"),
    "mixed": (lambda text: text.replace("torso", "ä").encode() + b"\xe4\n", "UTF-8"),
    "binary": (lambda text: PNG, "UTF-8"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_is_an_error_that_names_it_and_makes_no_set(source, out, name):
    change, message = TABLES[name]
    changed = change(table())
    (source / "train.csv").write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(InputError, match=message) as error:
        go(source, out)
    assert "isic2020" in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: ("\ufeff" + text).encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace("torso", '"torso, left"').encode(),
        lambda text: text.replace("torso", "Körper").encode(),
        lambda text: "\n".join(line + "," + line.split(",")[0] for line in text.splitlines()).encode(),
    ],
    ids=["bom", "crlf", "no-last-newline", "quoted-comma", "umlaut", "unknown-column"],
)
def test_a_table_may_be_written_in_other_ways(source, out, change):
    (source / "train.csv").write_bytes(change(table()))
    go(source, out)
    assert len(manifest.read(out).records) == COUNT


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "train" / f"{VICTIM}.png").write_bytes(PNG), "Keep one file an image"),
        (lambda s: (s / "ISIC_2020_Training_Duplicates.csv").write_text("a,b\n1,2\n"), "Duplicates.csv: column"),
        (lambda s: (s / "train" / f"{VICTIM}.jpg").unlink(), f"missing: {VICTIM}"),
        (lambda s: (s / "train").rename(s / "elsewhere"), "12 of 12 images that it names are missing"),
        (lambda s: (s / "train.csv").rename(s / "other.csv"), "no known layout"),
        (lambda s: (s / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(""), "more than one layout"),
        (lambda s: s.rename(s.with_name("moved")), "no such folder"),
    ],
)
def test_a_download_that_does_not_fit_together_is_an_error(source, out, spoil, message):
    spoil(source)
    with pytest.raises(InputError, match=message):
        go(source, out)
    assert not out.exists()


# ------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize("what", ["image", "table", "folder", "device", "beside", "dangling"])
def test_a_link_out_of_a_download_is_not_followed(source, out, outside, what):
    place, target = {
        "image": (source / "train" / f"{VICTIM}.jpg", outside / "secret.png"),
        "table": (source / "train.csv", outside / "table.csv"),
        "folder": (source / "train", outside),
        "device": (source / "train" / f"{VICTIM}.jpg", Path("/dev/zero")),
        "beside": (source / "more", outside),
        "dangling": (source / "train" / f"{VICTIM}.jpg", outside / "nothing"),
    }[what]
    if place.exists():
        place.rename(source.parent / "away")
    place.symlink_to(target)
    with pytest.raises(InputError, match=f"{place.name}: a symbolic link that leaves"):
        go(source, out)
    assert not out.exists()


def test_links_within_a_download_and_to_all_of_it_are_fine(source, out, tmp_path):
    path = source / "train" / f"{VICTIM}.jpg"
    path.rename(source / "moved.bin")
    path.symlink_to(source / "moved.bin")
    (source / "train").rename(source / "pictures")
    (source / "train").symlink_to("pictures")
    (tmp_path / "link").symlink_to(source)
    go(tmp_path / "link", out)
    assert len(manifest.read(out).records) == COUNT


@pytest.mark.parametrize("what", ["images/r_NV_001.png", "images", "metadata.csv", "dataset.json"])
def test_a_link_out_of_a_set_is_not_followed(tmp_path, outside, what):
    root = make_set(tmp_path / "set")
    path = root / what
    path.rename(tmp_path / "away")
    path.symlink_to(outside if what == "images" else outside / "secret.png")
    with pytest.raises(InputError, match=f"{path.name}: a symbolic link that leaves"):
        manifest.read(root)


@pytest.mark.parametrize("what", [f"images/{VICTIM}.png", "images", "metadata.csv", "dataset.json", "quarantine.csv"])
def test_nothing_is_written_through_a_link(source, out, outside, what):
    go(source, out)
    path = out / what
    if path.exists():
        path.rename(out.parent / "away")
    path.symlink_to(outside if what == "images" else outside / "secret.png")
    with pytest.raises(InputError, match="a symbolic link that leaves"):
        go(source, out)


# ------------------------------------------------------------------------------------------------ targets


def test_a_target_that_is_no_folder_is_an_error(source, out, tmp_path):
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "set", tmp_path / "file" / "a" / "b"):
        with pytest.raises(InputError, match=r"a file|no folder can be made"):
            go(source, target)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where nobody may write")
def test_a_target_that_cannot_be_made_is_an_error(source):
    with pytest.raises(InputError, match="no folder can be made there"):
        go(source, Path("/proc/dermsynth-set"))


def test_a_file_in_the_place_of_the_images_is_an_error(source, out):
    go(source, out)
    (out / "metadata.csv").unlink()
    (out / "images").rename(out.parent / "away")
    (out / "images").write_text("mine")
    with pytest.raises(InputError, match="images: no folder can be made there"):
        go(source, out)
    nothing_half_written(out)


def test_a_folder_in_the_place_of_an_image_is_an_error(source, out):
    go(source, out)
    (out / "metadata.csv").unlink()
    (out / "images" / f"{VICTIM}.png").unlink()
    (out / "images" / f"{VICTIM}.png").mkdir()
    with pytest.raises(InputError, match=f"{VICTIM}.png: cannot be written"):
        go(source, out)
    assert not (out / "metadata.csv").exists()


@contextlib.contextmanager
def files_of_at_most(size):
    """Writes beyond this many bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 100, 600, 1000, 1500])
def test_a_full_target_is_an_error_and_room_made_the_same_command_goes_on(source, out, size):
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (source / "train" / f"ISIC_{number:07d}.jpg").write_bytes(jpeg(noise))
    with files_of_at_most(size), pytest.raises(InputError, match="cannot be written"):
        go(source, out)
    nothing_half_written(out)
    go(source, out)
    assert len(manifest.read(out).records) == COUNT


# ------------------------------------------------------------------------------------------------ image sets

FIRST = "images/r_NV_000.png"
FILE_NAMES = ["../outside/secret.png", "/etc/passwd", "images/../../outside/secret.png", "..", "a\\b.png"]
FILE_NAMES += ["C:\\secret.png", "\\\\server\\share.png", "images/../images/r_NV_000.png", "images/\0.png"]
ENCODED = {
    "latin-1": lambda text: text.replace("nobody", "Jürgen").encode("latin-1"),
    "utf-16": lambda text: text.encode("utf-16"),
    "binary": lambda text: PNG,
    "empty": lambda text: b"",
    "header-only": lambda text: text.splitlines()[0].encode() + b"\n",
    "endless-cell": lambda text: text.replace("nobody", "x" * 200_000).encode(),
}
CELLS = {
    **{f"file_name-{name}": ("file_name", name, "leaves the set's folder|no file name") for name in FILE_NAMES},
    "split": ("split", "training", "split 'training'"),
    "origin": ("origin", "fake", "origin 'fake'"),
    "diagnosis": ("diagnosis", "WART", "diagnosis 'WART'"),
    "malignant": ("malignant", "2", "malignant '2'"),
    "malignant-word": ("malignant", "yes", "malignant 'yes'"),
    "width": ("width", "wide", "must be numbers"),
    "width-zero": ("width", "0", "at least 1 pixel"),
    "height-negative": ("height", "-4", "at least 1 pixel"),
    "height-fraction": ("height", "1.5", "must be numbers"),
    "age": ("age_approx", "old", "must be numbers"),
    "id-twice": ("image_id", "r_NV_001", "occurs twice"),
    "file-twice": ("file_name", "images/r_NV_001.png", "occurs twice"),
    "group-in-two-splits": ("group", "g_r_NV_007", "different splits"),
}


def rewritten(root, change):
    with (root / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.mark.parametrize("name", CELLS)
def test_a_bad_cell_of_a_set_is_an_error_that_names_it(tmp_path, name):
    column, value, message = CELLS[name]
    root = rewritten(make_set(tmp_path / "set"), lambda rows: rows[0].update({column: value}))
    with pytest.raises(InputError, match=message) as error:
        manifest.read(root)
    assert "metadata.csv" in str(error.value)


@pytest.mark.parametrize("column", manifest.REQUIRED)
def test_a_column_that_is_missing_or_blank_is_named(tmp_path, column):
    root = rewritten(make_set(tmp_path / "set"), lambda rows: rows[3].update({column: ""}))
    with pytest.raises(InputError, match=f"line 5: {column} is blank"):
        manifest.read(root)
    rewritten(root, lambda rows: [row.pop(column) for row in rows])
    with pytest.raises(InputError, match=f"column {column} is missing"):
        manifest.read(root)


@pytest.mark.parametrize("name", ENCODED)
def test_a_table_of_a_set_that_is_no_table_is_an_error(tmp_path, name):
    root = make_set(tmp_path / "set")
    path = root / "metadata.csv"
    path.write_bytes(ENCODED[name](path.read_text()))
    with pytest.raises(InputError, match=r"metadata\.csv: (not a CSV|column|no rows)"):
        manifest.read(root)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", PNG])
def test_a_broken_account_of_a_set_is_an_error(tmp_path, content):
    root = make_set(tmp_path / "set")
    (root / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        manifest.read(root)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    root = make_set(tmp_path / "set")
    before = manifest.read(root).records
    path = root / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert manifest.read(root).records == before


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("content", [None, b"", b"text", PNG[:-6], PNG[:40], png(60000, 60000)[:-1]])
def test_a_broken_image_of_a_set_is_named_when_it_is_loaded(tmp_path, content, cached):
    root = make_set(tmp_path / "set")
    path = root / FIRST
    path.unlink() if content is None else path.write_bytes(content)
    cache = tmp_path / "cache" if cached else None
    data = ClassificationData(real=root, classes=CLASSES, size=16, batch_size=4, pixel_cache=cache)
    data.setup("fit")
    with pytest.raises(InputError, match=r"r_NV_000\.png: (cannot be read|not a JPEG|truncated)"):
        list(data.train_dataloader())
    assert not cached or not list(cache.iterdir())
