"""`prepare`: an ISIC download becomes an image set."""

import json
import platform
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from dermsynth.data import manifest, splits
from dermsynth.data.cleaning import Cleaning
from dermsynth.data.isic import Download, Layout, LayoutName, SourceImage, read_download, some
from dermsynth.data.manifest import Record
from dermsynth.data.store import QUARANTINE, store_all
from dermsynth.errors import InputError
from dermsynth.files import make_folder, refuse_links_out, write_atomically

_PACKAGES = ("dermsynth", "numpy", "opencv-python-headless", "pillow", "scikit-learn")


def prepare(
    sources: list[Path],
    out: Path,
    layout: LayoutName = "auto",
    size: int = 512,
    split: Literal["auto", "official", "grouped"] = "auto",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    processes: int | None = None,
    max_broken: float = 0.01,
    hair_removal: bool = False,
    border_crop: bool = False,
) -> None:
    """Make an image set out of one or more ISIC downloads.

    The images are turned upright, resized once and stored as PNG; metadata.csv is written last, so a folder
    that has it is complete. After a kill the same command goes on where it stopped. Files that cannot be read are
    left out and listed in quarantine.csv; once they are mended, the same command takes them in.

    Args:
        sources: folders with ISIC downloads as unpacked.
        out: folder of the image set; new, or one that the same command began.
        layout: how the downloads lie on disk; auto recognises it by their files.
        size: pixels of the short side; the aspect is kept.
        split: official is the download's own; grouped deals whole patients (else lesions, else images) with
            each class in proportion; auto takes the official one where there is one, else grouped.
        fractions: shares of the images in train, val and test of a grouped split.
        seed: of the grouped split.
        processes: that decode at the same time; one for each core if not given.
        max_broken: share of the images, from 0 to 1, that may be unreadable; more are an error.
        hair_removal: paint over hairs (DullRazor).
        border_crop: cut off a black frame and the corners of a round field of view.
    """
    if size < 1:
        raise InputError(f"--size {size}: expected at least 1 pixel.")
    if processes is not None and processes < 1:
        raise InputError(f"--processes {processes}: expected at least 1.")
    if not 0 <= max_broken <= 1:
        raise InputError(f"--max_broken {max_broken:g}: expected a share from 0 to 1, as 0.01 for one in a hundred.")
    if not sources:
        raise InputError("SOURCE: name at least one folder with an ISIC download.")
    readings = [_read(folder, layout) for folder in sources]
    found = [image for reading in readings for image in reading.download.images]
    _refuse_repeated(found)
    policy, records = _split([image.record for image in found], readings, split, fractions, seed)

    settings = {
        # Names and hashes, not paths: a set may be given away.
        "sources": [folder.resolve().name for folder in sources],
        "tables": [reading.account()["tables"] for reading in readings],
        "layouts": [reading.layout.name for reading in readings],
        "size": size,
        "split": policy,
        "fractions": list(fractions),
        "seed": seed,
        "hair_removal": hair_removal,
        "border_crop": border_crop,
    }
    _claim(out, settings)
    done = store_all(found, out, size, processes, max_broken, Cleaning(hair_removal, border_crop))
    records = [
        replace(record, sha256=stored.sha256, width=stored.width, height=stored.height)
        for record, stored in zip(records, done, strict=True)
        if stored
    ]
    info = {
        "command": _command(
            sources,
            out=out,
            layout=layout,
            size=size,
            split=split,
            fractions=list(fractions),
            seed=seed,
            max_broken=max_broken,
            hair_removal=hair_removal,
            border_crop=border_crop,
        ),
        "settings": settings,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "sources": [reading.account() for reading in readings],
        "counts": {name: dict(_by_class(records, name)) for name in _used(records)},
        "quarantined": len(done) - len(records),
    }
    manifest.write(out, records, info)
    _report(records, readings, out, policy)
    if broken := len(done) - len(records):
        print(f"{broken} broken images left out, listed in {out / QUARANTINE}")


def _command(sources: Sequence[Path], **flags: Any) -> str:
    words = ["python", "-m", "dermsynth", "prepare", *(folder.resolve().name for folder in sources)]
    for name, value in flags.items():
        words += [f"--{name}", str(value).replace(" ", "") if isinstance(value, list) else str(value)]
    return shlex.join(words)


@dataclass(frozen=True)
class _Reading:
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
        }


def _read(folder: Path, layout: LayoutName) -> _Reading:
    chosen, why, download = read_download(folder, layout)
    print(f"{folder}: layout {chosen.name} ({why}), {len(download.images)} images")
    return _Reading(folder, chosen, why, download)


def _refuse_repeated(found: Sequence[SourceImage]) -> None:
    times = Counter(image.record.image_id for image in found)
    repeated = [name for name, count in times.items() if count > 1]
    if repeated:
        raise InputError(
            f"{len(repeated)} images lie in more than one source: {some(repeated)}. "
            "The ISIC challenges share images: prepare the sources as separate sets."
        )


def _split(
    records: Sequence[Record],
    readings: Sequence[_Reading],
    split: str,
    fractions: Sequence[float],
    seed: int,
) -> tuple[str, list[Record]]:
    without = [reading for reading in readings if not reading.download.official_split]
    if split == "official" and without:
        raise InputError(
            f"--split official: {without[0].folder} ({without[0].layout.name}) "
            "does not have all three official parts. Use --split grouped."
        )
    policy = ("grouped" if without else "official") if split == "auto" else split
    names = splits.groups(records)
    if policy == "official":
        return policy, [replace(record, group=group) for record, group in zip(records, names, strict=True)]
    dealt = splits.grouped_split(records, names, fractions, seed)
    return policy, [replace(r, group=g, split=s) for r, g, s in zip(records, names, dealt, strict=True)]


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder ours, or find that the same command began it; dataset.json is the mark."""
    mark = out / manifest.DATASET
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: a file. Give a folder.")
    if out.is_dir():
        refuse_links_out(out)
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
        raise InputError(f"--out {out}: it is not empty and prepare did not make it. Give a new folder.")
    make_folder(out)
    write_atomically(mark, json.dumps({"settings": settings}, indent=2) + "\n")


def _used(records: Iterable[Record]) -> list[str]:
    present = {record.split for record in records}
    return [name for name in manifest.SPLITS if name in present]


def _by_class(records: Iterable[Record], split: str) -> Counter[str]:
    return Counter(record.diagnosis or "unknown" for record in records if record.split == split)


def _report(records: Sequence[Record], readings: Sequence[_Reading], out: Path, policy: str) -> None:
    classes = [name for name, _ in Counter(record.diagnosis or "unknown" for record in records).most_common()]
    columns = [*classes, "malignant", "benign", "images", "groups"]
    widths = [max(7, len(name) + 2) for name in columns]
    print(f"\n{'split':<8}" + "".join(f"{name:>{w}}" for name, w in zip(columns, widths, strict=True)))
    for name in [*_used(records), "all"]:
        chosen = [record for record in records if name in (record.split, "all")]
        counts = Counter(record.diagnosis or "unknown" for record in chosen)
        malignant = Counter(record.malignant for record in chosen)
        cells = [counts[c] for c in classes]
        cells += [malignant[1], malignant[0], len(chosen), len({record.group for record in chosen})]
        print(f"{name:<8}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))
    patients = len({record.patient_id for record in records if record.patient_id})
    print(f"\n{policy} split; {patients or 'no'} patient ids")
    print(f"{sum(reading.download.duplicates_dropped for reading in readings)} listed duplicates dropped")
    if extra := sum(reading.download.files_without_row for reading in readings):
        print(f"{extra} image files left out that no table names")
    print(f"image set: {out}")
    # Where diagnoses are mostly unknown, malignancy is what can be learnt.
    known = [name for name in classes if name != "unknown"]
    few = 2 * sum(record.diagnosis == "" for record in records) > len(records)
    labels = "[benign, malignant]" if few else f"[{', '.join(known)}]"
    print(
        f"next: python -m dermsynth fit --config configs/tiny/vit_baseline.yaml --data.real {out} "
        f'--data.classes "{labels}" --run runs/my-first'
    )
