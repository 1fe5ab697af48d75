"""What `prepare` and `adopt` share: a folder that is claimed, filled and completed as an image set."""

import hashlib
import json
import os
import platform
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dermsynth import made_from
from dermsynth.data.prepare.layouts.download import SourceImage
from dermsynth.data.prepare.store import QUARANTINE, store_all
from dermsynth.data.sets import manifest
from dermsynth.data.sets.cleaning import Cleaning
from dermsynth.data.sets.images import LARGEST_SIZE
from dermsynth.data.sets.manifest import Record
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError
from dermsynth.files import make_folder, reading, refuse_links_out, write_atomically

_PACKAGES = ("dermsynth", "numpy", "opencv-python-headless", "pillow", "scikit-learn")
# In the set's folder: how large the images' files were, to tell whether they are still the same.
_SIZES = ".source-sizes.json"


def check_numbers(size: int, processes: int | None, max_broken: float) -> None:
    """Raise if a flag that both commands have makes no sense."""
    if not 1 <= size <= LARGEST_SIZE:
        raise InputError(f"--size {size}: expected 1 to {LARGEST_SIZE} pixels.")
    if processes is not None and processes < 1:
        raise InputError(f"--processes {processes}: expected at least 1.")
    if not 0 <= max_broken <= 1:
        raise InputError(f"--max_broken {max_broken:g}: expected a share from 0 to 1, as 0.01 for one in a hundred.")


def refuse_inside(out: Path, sources: Sequence[Path]) -> None:
    """Raise if a set would come to lie among the images that it is made of."""
    for source in sources:
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source)):
            raise InputError(f"--out {out}: it lies in the source {source}. Give a folder outside it.")


def origin_of(command: str, settings: Mapping[str, Any], sources: Sequence[Path]) -> tuple[str, made_from.Entry]:
    """What made_from.json says of a set: what the command was told, and the content of its sources."""
    inputs = {f"source {number}": made_from.source(folder) for number, folder in enumerate(sources)}
    return command, {"settings": dict(settings), "inputs": inputs}


def fingerprint(found: Iterable[SourceImage]) -> str:
    """A hash of which images a set is to hold, and in which class and official split: class folders have no table."""
    lines = [
        f"{r.image_id}/{image.path.name}/{image.member}/{r.diagnosis}/{r.malignant}/{r.split}"
        for image in found
        for r in [image.record]
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def fill(
    found: Sequence[SourceImage],
    out: Path,
    settings: Mapping[str, Any],
    processes: int | None,
    max_broken: float,
    origin: tuple[str, made_from.Entry],
    cleaning: Cleaning | None = None,
) -> list[Record]:
    """Bring images into a set; the same call resumes where a killed one stopped.

    Args:
        found: the images.
        out: folder of the set; new, or one that a call with the same settings began.
        settings: what decides how the set comes out, `size` (pixels of the short side) among it.
        processes: that decode at the same time; one for each core if not given.
        max_broken: the share of images that may be broken.
        origin: the command and what it makes the set from, as made_from.json keeps it.
        cleaning: what is done to them beside resizing.

    Returns:
        Their records with hash and size, in order; of a broken image the hash stays blank.

    Raises:
        InputError: the folder holds something else, or too many images are broken.
    """
    _claim(out, settings)
    _refuse_changed(found, out)
    if not (out / manifest.METADATA).is_file():  # else it is of the set as it is, until `complete`
        made_from.write(out, *origin)
    done = store_all(found, out, settings["size"], processes, max_broken, cleaning)
    return [
        replace(image.record, sha256=stored.sha256, width=stored.width, height=stored.height)
        if stored
        else image.record
        for image, stored in zip(found, done, strict=True)
    ]


def complete(
    records: Sequence[Record],
    out: Path,
    settings: Mapping[str, Any],
    info: Mapping[str, Any],
    origin: tuple[str, made_from.Entry],
) -> list[Record]:
    """Write the tables of a filled set, which make it one; say how many broken images are left out.

    Args:
        records: what `fill` gave, with their final group and split.
        out: folder of the set.
        settings: as for `fill`.
        info: what else dataset.json says.
        origin: as for `fill`.

    Returns:
        The records as they are in metadata.csv.
    """
    whole = [record for record in records if record.sha256]
    full_info = {
        **info,
        "settings": settings,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "counts": {name: dict(by_class(whole, name)) for name in used_splits(whole)},
        "quarantined": len(records) - len(whole),
    }
    manifest.write(out, whole, full_info)
    made_from.write(out, *origin)
    if broken := len(records) - len(whole):
        print(f"{broken} broken images left out, listed in {out / QUARANTINE}")
    return whole


def command(name: str, sources: Sequence[Path], /, **flags: Any) -> str:
    """The command line as dataset.json keeps it: names and not paths, as a set may be given away."""
    words = ["python", "-m", "dermsynth", name, *(folder.resolve().name for folder in sources)]
    for flag, value in flags.items():
        if value is None:
            continue
        if isinstance(value, Path):
            words += [f"--{flag}", Path(os.path.realpath(value)).name]
        elif isinstance(value, dict):
            words += [word for key, inner in value.items() if inner for word in (f"--{flag}.{key}", str(inner))]
        else:
            words += [f"--{flag}", str(value).replace(" ", "") if isinstance(value, list) else str(value)]
    return shlex.join(words)


def used_splits(records: Iterable[Record]) -> list[str]:
    """The splits that hold images, in their usual order."""
    present = {record.split for record in records}
    return [name for name in manifest.SPLITS if name in present]


def by_class(records: Iterable[Record], split: str) -> Counter[str]:
    """How many images of each diagnosis a split holds."""
    return Counter(record.diagnosis or "unknown" for record in records if record.split == split)


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder ours, or find that the same command began it; dataset.json is the mark."""
    mark = out / manifest.DATASET
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: a file. Give a folder.")
    if out.is_dir():
        refuse_links_out(out)
    if mark.is_file():
        before = _object(_object_in(mark).get("settings"))
        wrong = [
            f"{key} {before.get(key)!r}, now {settings[key]!r}" for key in settings if before.get(key) != settings[key]
        ]
        if wrong:
            raise InputError(
                f"--out {out}: it holds a set prepared otherwise: {'; '.join(wrong)}. "
                "Give another folder, or delete this one."
            )
        return
    # Hidden files do not count: a killed run, or a file manager, may have left one.
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"--out {out}: it is not empty and dermsynth did not make it. Give a new folder.")
    make_folder(out)
    write_atomically(mark, json.dumps({"settings": settings}, indent=2) + "\n")


def _refuse_changed(found: Sequence[SourceImage], out: Path) -> None:
    """Raise if the set holds an image whose file has become another one since.

    Two folders of numbered images may have the same names and labels. A broken image is not in the set, so its file
    may be fixed; those in an HDF5 file have the names that the archive gave, and a table.
    """
    table = out / _SIZES
    before = _object_in(table) if table.is_file() else {}
    sizes = {image.record.image_id: _size(image.path) for image in found if not image.member}
    held = {image.record.image_id for image in found if (out / image.record.file_name).is_file()}
    changed = [name for name, size in sizes.items() if name in held and before.get(name, size) != size]
    if changed:
        raise InputError(
            f"--out {out}: {len(changed)} of its images were made from files of the same names, but of other sizes: "
            f"{some(changed)}. Give another folder, or delete this one."
        )
    write_atomically(table, json.dumps(sizes, indent=0) + "\n")


def _object_in(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where that is not an object, as of a file that somebody spoilt."""
    with reading(path):
        text = path.read_bytes()
    try:
        return _object(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _object(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is found broken later
        return -1
