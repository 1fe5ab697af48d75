"""What `prepare` and `adopt` share: a folder that is claimed, filled and completed as an image set."""

import json
import platform
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dermsynth.data import manifest
from dermsynth.data.layouts.download import Choices, Download, Layout, SourceImage
from dermsynth.data.layouts.recognise import LAYOUTS, read_download
from dermsynth.data.manifest import Record
from dermsynth.data.store import store_all
from dermsynth.errors import InputError
from dermsynth.files import write_atomically

_PACKAGES = ("dermsynth", "numpy", "opencv-python-headless", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Reading:
    """One source folder, recognised and read."""

    folder: Path
    layout: Layout
    why: str
    download: Download

    def account(self) -> dict[str, Any]:
        """What dataset.json keeps of it."""
        return {
            "layout": self.layout.name,
            "why": self.why,
            "tables": {
                table.relative_to(self.folder).as_posix(): manifest.sha256_file(table) for table in self.download.tables
            },
            "images": len(self.download.images),
            "duplicates_dropped": self.download.duplicates_dropped,
            "files_without_row": self.download.files_without_row,
            "notes": list(self.download.notes),
        }


def read_source(folder: Path, layout: str, choices: Choices, among: Sequence[str] = tuple(LAYOUTS)) -> Reading:
    """Read a source folder and say which layout was taken, why, and what was left out."""
    chosen, why, download = read_download(folder, layout, choices, among)
    print(f"{folder}: layout {chosen.name} ({why}), {len(download.images)} images")
    for note in download.notes:
        print(f"  {note}")
    return Reading(folder, chosen, why, download)


def check_numbers(size: int, processes: int | None) -> None:
    """Raise if a flag that both commands have makes no sense."""
    if size < 1:
        raise InputError(f"--size {size}: expected at least 1 pixel.")
    if processes is not None and processes < 1:
        raise InputError(f"--processes {processes}: expected at least 1.")


def make(
    found: Sequence[SourceImage],
    out: Path,
    settings: Mapping[str, Any],
    info: Mapping[str, Any],
    processes: int | None = None,
) -> list[Record]:
    """Bring images into a set; the same call goes on where a killed one stopped.

    Args:
        found: the images, with their final records but for hash and size.
        out: folder of the set; new, or one that a call with the same settings began.
        settings: what decides how the set comes out, `size` (pixels of the short side) among it.
        info: what else dataset.json says.
        processes: that decode at the same time; one for each core if not given.

    Returns:
        The records as they are in metadata.csv.

    Raises:
        InputError: the folder holds something else, or images cannot be used.
    """
    _claim(out, settings)
    done = store_all(found, out, settings["size"], processes)
    records = [
        replace(image.record, sha256=stored.sha256, width=stored.width, height=stored.height)
        for image, stored in zip(found, done, strict=True)
    ]
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    counts = {name: dict(by_class(records, name)) for name in used_splits(records)}
    manifest.write(out, records, {**info, "settings": settings, "versions": versions, "counts": counts})
    return records


def command(name: str, sources: Sequence[Path], **flags: Any) -> str:
    """The command line as dataset.json keeps it: names and not paths, as a set may be given away."""
    words = ["python", "-m", "dermsynth", name, *(folder.resolve().name for folder in sources)]
    for flag, value in flags.items():
        if isinstance(value, dict):
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
    if mark.is_file():
        try:
            before = json.loads(mark.read_text(encoding="utf-8")).get("settings", {})
        except (ValueError, AttributeError):
            before = {}
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
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, json.dumps({"settings": settings}, indent=2) + "\n")
