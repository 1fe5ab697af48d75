"""By hand: image sets, downloads and predictions that somebody, or a broken disk, has spoilt."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.robustness import spoil
from tests.robustness.case import Case, Expected
from tests.robustness.spoil import Spoil

FIT = "fit --config vit.yaml --run run"
PREPARE = "prepare folders --out out --size 16 --processes 1"
TABLE = "prepare table --out out --size 16 --processes 1 --columns.image image --columns.label dx"
ADOPT = "adopt folders --out out --size 16 --processes 1 --license CC0-1.0 --attribution x"
COMPARE = "compare real-seed1 real-seed2 hybrid-seed1 hybrid-seed2 --out out"
MANIFEST, PREDICTIONS = "real/metadata.csv", "hybrid-seed1/predictions.csv"
IMAGE = "real/images/r_NV_000.png"  # of the train split
JPEG = "folders/benign/b0.jpg"
COLUMNS = ("file_name", "image_id", "sha256", "width", "height", "group", "split", "origin", "source")

#: Column of metadata.csv: what one row says.
CELLS = {
    "file_name": ("", "../outside.png", "/etc/passwd", "images/absent.png", "images", "./images/r_NV_000.png", "x\0y"),
    "image_id": ("", "r_NV_000"),
    "sha256": ("", "zz", "é" * 64),
    "width": ("", "0", "-1", "x", "nan", "inf", "1e308", "16.5", "999999", "9" * 30, "8"),
    "height": ("", "0", "-1", "x", "nan", "inf", "999999", "8"),
    "diagnosis": ("XYZ", "nan", "é"),
    "malignant": ("2", "-1", "nan", "x", "1"),
    "group": ("",),
    "split": ("", "banana", "Train"),
    "origin": ("", "banana", "synthetic"),
    "age_approx": ("nan", "inf", "-5", "x", "1e308", "99999"),
}
#: Column of predictions.csv: what one row says.
PREDICTED = {
    "image_id": ("", "i0", "other"),
    "group": ("", "other"),
    "label": ("", "banana", "malign", "0"),
    "p_benign": ("", "nan", "inf", "-1", "2", "x", "1e308", "[1]"),
    "split": ("", "banana", "train"),
}
#: What a text file may be instead.
TEXTS: dict[str, str | bytes] = {
    "nothing": "",
    "binary": bytes(range(256)) * 8,
    "UTF-16": "image_id,file_name\nx,y\n".encode("utf-16"),
    "a header alone": "file_name,image_id,sha256,width,height,group,split,origin,source\n",
    "one line of a million letters": "x" * 1_000_000,
    "an unclosed quote": 'file_name,image_id\n"x,y\n' * 5,
}


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that declares a size, over whatever data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


#: What an image file may be instead.
IMAGES: dict[str, Spoil] = {
    "nothing": spoil.write("IMAGE", b""),
    "text": spoil.write("IMAGE", "no image"),
    "a PNG bomb of 30,000 × 30,000": spoil.write("IMAGE", png(30_000, 30_000, bytes(1_000_000))),
    "a PNG of 0 × 0": spoil.write("IMAGE", png(0, 0)),
    "a PNG of 2³¹ × 2³¹": spoil.write("IMAGE", png(2**31 - 1, 2**31 - 1)),
    "a PNG of another size": spoil.write("IMAGE", png(8, 8, bytes(25 * 8))),
    "a PNG without its pixels": spoil.write("IMAGE", png(16, 16)),
    "a GIF": spoil.write("IMAGE", b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(30)),
    "an SVG": spoil.write("IMAGE", "<svg xmlns='http://www.w3.org/2000/svg'><image href='http://x/'/></svg>"),
    "half of it": spoil.cut("IMAGE"),
    "its middle zero": spoil.zeros("IMAGE"),
    "its first two bytes": spoil.change("IMAGE", lambda b: b[:2]),
    "a pipe": spoil.fifo("IMAGE"),
    "a folder": spoil.folder("IMAGE"),
    "a link out of the folder": spoil.link("IMAGE", "/etc/passwd"),
    "a link to itself": spoil.link("IMAGE", Path("r_NV_000.png").name),
    "absent": spoil.remove("IMAGE"),
}


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _sets()
    yield from _json()
    yield from _sources()
    yield from _predictions()


def _case(what: str, command: str, how: Spoil | None, expected: Expected = "refused") -> Case:
    return Case(f"{what}: {command}", tuple(command.split()), how, expected)


def _sets() -> Iterator[Case]:
    yield _case("a good set", FIT, None, "accepted")
    for column, values in CELLS.items():
        for value in values:
            what = f"metadata.csv, {column} {value[:20].replace(chr(0), 'NUL')!r}"
            yield _case(what, FIT, spoil.cell(MANIFEST, column, value))
    replaced = spoil.rows(MANIFEST, lambda rows: [{**row, "sha256": _zeros(row, "test")} for row in rows])
    yield _case("metadata.csv, the hash of another test image", FIT, replaced)
    # Of training images the bytes are not hashed, as that would read the whole set before the first step.
    replaced = spoil.rows(MANIFEST, lambda rows: [{**row, "sha256": _zeros(row, "train")} for row in rows])
    yield _case("metadata.csv, the hash of another training image", FIT, replaced, "accepted")
    for what, text in TEXTS.items():
        yield _case(f"metadata.csv, {what}", FIT, spoil.write(MANIFEST, text))
    for column in COLUMNS:
        drop = spoil.rows(MANIFEST, lambda rows, c=column: [{k: v for k, v in r.items() if k != c} for r in rows])
        yield _case(f"metadata.csv, no column {column}", FIT, drop)
    yield _case("metadata.csv, a row twice", FIT, spoil.rows(MANIFEST, lambda rows: [*rows, rows[0]]))
    for column in ("patient_id", "lesion_id", "sha256", "group"):
        yield _case(f"metadata.csv, one {column} in all splits", FIT, spoil.cell(MANIFEST, column, "a" * 64, True))
    for split in ("train", "val", "test", "unused"):
        yield _case(f"metadata.csv, all {split}", FIT, spoil.cell(MANIFEST, "split", split, True))
    twice = spoil.change(MANIFEST, lambda b: b.replace(b"image_id", b"split", 1))
    yield _case("metadata.csv, a column twice", FIT, twice)
    yield _case("metadata.csv, width 999 everywhere", FIT, spoil.cell(MANIFEST, "width", "999", True))
    for what, how in {
        "a pipe": spoil.fifo(MANIFEST), "a folder": spoil.folder(MANIFEST), "absent": spoil.remove(MANIFEST),
        "a link out of the set": spoil.link(MANIFEST, "/etc/passwd"), "in a file's place": spoil.file("real"),
    }.items():  # fmt: skip
        yield _case(f"metadata.csv, {what}", FIT, how)
    for what, how in IMAGES.items():
        yield _case(f"a training image, {what}", FIT, _at(how, IMAGE))


def _zeros(row: dict[str, str], split: str) -> str:
    """The hash of the first image of a split made 0, any other as it is."""
    return "0" * 64 if row["split"] == split and row["image_id"] in ("r_NV_000", "r_NV_006") else row["sha256"]


def _json() -> Iterator[Case]:
    command = "prepare folders --out real --size 16 --processes 1"
    for what, text in {
        **TEXTS, "a list": "[]", "a number": "5", "nested lists": "[" * 100_000, "NaN": '{"settings": NaN}',
        "settings 5": '{"settings": 5}', "train_split_sha256 5": '{"train_split_sha256": 5}',
    }.items():  # fmt: skip
        if what == "a header alone":
            continue
        # Which split a set has is told by its table.
        expected: Expected = "either" if what.startswith("train_split") else "refused"
        yield _case(f"dataset.json, {what}", FIT, spoil.write("real/dataset.json", text), expected)
        yield _case(f"dataset.json, {what}", command, spoil.write("real/dataset.json", text))
    yield _case("dataset.json, a pipe", FIT, spoil.fifo("real/dataset.json"))
    yield _case("dataset.json, a folder", FIT, spoil.folder("real/dataset.json"))


def _sources() -> Iterator[Case]:
    for command in (PREPARE, ADOPT):
        yield _case("good folders", command, None, "accepted")
        for what, how in IMAGES.items():
            expected: Expected = "either" if what in ("absent", "a folder", "a PNG of another size") else "refused"
            yield _case(f"a source image, {what}", command, _at(how, JPEG), expected)
        yield _case("a source without an image", command, spoil.remove("folders/malignant"), "either")
        other = spoil.write("folders/malignant/m9.bmp", b"BM")
        yield _case("a source with a .bmp", command, other, "either")
        latin = spoil.write("folders/benign/n\udce4vus.jpg", b"x")
        yield _case("a source with a file name that is not UTF-8", command, latin)
    copied = spoil.change("folders/malignant/m0.jpg", lambda b: Path(JPEG).read_bytes())
    yield _case("one image in two classes", PREPARE, copied, "either")
    yield _case("a word that no folder has", f"{PREPARE} --labels.bening MEL", None)
    yield _case("columns where there is no CSV", f"{PREPARE} --columns.image x", None)
    yield _case("a good table", TABLE, None, "accepted")
    for what, text in TEXTS.items():
        yield _case(f"a source's CSV, {what}", TABLE, spoil.write("table/labels.csv", text))
    for column, values in {
        "image": ("", "absent", "../x.jpg", "/etc/passwd", "b0.jpg", "x\0y"),
        "dx": ("", "banana"),
    }.items():
        for value in values:
            shown = value.replace("\0", "NUL")
            one = spoil.cell("table/labels.csv", column, value)
            yield _case(
                f"a source's CSV, {column} {shown!r}",
                TABLE,
                one,
                "either" if (column, value) == ("dx", "") else "refused",
            )
    for value in ("inf", "-5", "1e308", "x"):
        one = spoil.cell("table/labels.csv", "age", value)
        yield _case(f"a source's CSV, age {value}", f"{TABLE} --columns.age age", one)
    # As pandas writes what is not known.
    one = spoil.cell("table/labels.csv", "age", "nan")
    yield _case("a source's CSV, age nan", f"{TABLE} --columns.age age", one, "accepted")
    for flag in ("image", "label", "patient", "lesion", "split", "age", "malignant", "license"):
        yield _case("a column that is not there", f"{TABLE} --columns.{flag} absent", None)
    label = spoil.change("table/labels.csv", lambda b: b.replace(b"patient", b"dx", 1))
    yield _case("a source's CSV, its label column twice", TABLE, label)
    latin = spoil.change("table/labels.csv", lambda b: b.replace(b"pb0", b"p\xe4"))
    yield _case("a source's CSV, Latin-1", TABLE, latin)
    for fractions in ("[.nan,.5,.5]", "[.nan,.nan,.nan]", "[1,1,1]", "[-1,1,1]", "[.5,.5]", "[.inf,0,0]", "[0,0,0]"):
        yield _case("shares", f"{PREPARE} --fractions {fractions}", None)


def _predictions() -> Iterator[Case]:
    yield _case("good predictions", COMPARE, None, "accepted")
    for column, values in PREDICTED.items():
        for value in values:
            yield _case(f"predictions.csv, {column} {value!r}", COMPARE, spoil.cell(PREDICTIONS, column, value))
    for split in ("train", "unused", "banana"):

        def everywhere(root: Path, split: str = split) -> None:
            for path in sorted(root.glob("*-seed?/predictions.csv")):
                spoil.cell(str(path.relative_to(root)), "split", split, True)(root)

        yield _case(f"predictions.csv of all runs, all {split}", COMPARE, everywhere)
    for what, text in TEXTS.items():
        yield _case(f"predictions.csv, {what}", COMPARE, spoil.write(PREDICTIONS, text))
    yield _case("predictions.csv, a pipe", COMPARE, spoil.fifo(PREDICTIONS))
    yield _case("predictions.csv, a folder", COMPARE, spoil.folder(PREDICTIONS))
    yield _case("predictions.csv, absent", COMPARE, spoil.remove(PREDICTIONS))
    yield _case("predictions.csv, one row", COMPARE, spoil.rows(PREDICTIONS, lambda rows: rows[:1]))
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    for what, text in {
        "an alias bomb": bomb,
        "an alias of itself": "&a {x: *a}",
        "a list": "[1]",
        "binary": b"\x80\x81",
    }.items():
        yield _case(f"a run's fit.yaml, {what}", COMPARE, spoil.write("hybrid-seed1/fit.yaml", text))
    for words in ("compare --out out", "compare real-seed1 --out out", "compare real-seed1 real-seed1 --out out"):
        yield _case("too few runs", words, None)
    yield _case("no such arm", f"{COMPARE} --baseline absent", None)

    # A `$` is taken for a variable that nobody filled in.
    yield from _arm(r"$\frac{a}$", "refused")
    for name in ("a_b^c{", "melanóma 黑色素瘤 🩺", "a\nb", "=cmd()", "a" * 200):
        yield from _arm(name, "accepted")


def _arm(name: str, expected: Expected) -> Iterator[Case]:
    def rename(root: Path) -> None:
        (root / "hybrid-seed1").rename(root / f"{name}-seed1")

    words = ("compare", "real-seed1", f"{name}-seed1", "--out", "out")
    yield Case(f"an arm of the name {name[:30]!r}", words, rename, expected)


def _at(how: Spoil, path: str) -> Spoil:
    """The same of a file whose name the table `IMAGES` leaves open."""

    def spoilt(root: Path) -> None:
        aside = root / "IMAGE"
        (root / path).rename(aside)
        how(root)
        if aside.exists() or aside.is_symlink():
            aside.rename(root / path)

    return spoilt
