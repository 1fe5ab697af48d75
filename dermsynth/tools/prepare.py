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

from dermsynth.data import manifest, official, splits
from dermsynth.data import near_duplicates as copies
from dermsynth.data.isic import Download, Layout, LayoutName, SourceImage, read_download, some
from dermsynth.data.manifest import Record
from dermsynth.data.plan import Plan, Straddling
from dermsynth.data.store import store_all
from dermsynth.errors import InputError
from dermsynth.files import write_atomically

_PACKAGES = ("dermsynth", "numpy", "opencv-python-headless", "pillow", "scikit-learn")


def prepare(
    sources: list[Path],
    out: Path,
    layout: LayoutName = "auto",
    size: int = 512,
    split: Literal["auto", "official", "grouped"] = "auto",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    folds: int | None = None,
    straddling: Straddling = "report",
    near_duplicates: bool = True,
    seed: int = 0,
    processes: int | None = None,
) -> None:
    """Make an image set out of one or more ISIC downloads.

    The images are turned upright, resized once and stored as PNG; metadata.csv is written last, so a folder
    that has it is complete. After a kill the same command goes on where it stopped.

    Args:
        sources: folders with ISIC downloads as unpacked.
        out: folder of the image set; new, or one that the same command began.
        layout: how the downloads lie on disk; auto recognises it by their files.
        size: pixels of the short side; the aspect is kept.
        split: official is the download's own; grouped deals whole patients (else lesions, else images) with
            each class in proportion; auto takes the official one where there is one, else grouped.
        fractions: shares of the images in train, val and test of a grouped split.
        folds: deal whole groups to so many folds instead and note them in the column fold; data.fold chooses the
            one to test on, the next one is for validation, and the column split is that of fold 0.
        straddling: what to do with near-duplicates that lie across an official split. report names them and leaves
            the split as it is; move also takes those in train, or in val if the other is in test, out (unused).
        near_duplicates: whether to look for images that are copies of one photograph; they stay in one split.
        seed: of the grouped split or the folds.
        processes: that decode at the same time; one for each core if not given.
    """
    if size < 1:
        raise InputError(f"--size {size}: expected at least 1 pixel.")
    if processes is not None and processes < 1:
        raise InputError(f"--processes {processes}: expected at least 1.")
    if not sources:
        raise InputError("SOURCE: name at least one folder with an ISIC download.")
    readings = [_read(folder, layout) for folder in sources]
    found = [image for reading in readings for image in reading.download.images]
    _refuse_repeated(found)
    policy = _policy(readings, split, folds)
    plan = Plan(policy, tuple(fractions), folds, straddling, seed)
    records = [image.record for image in found]
    plan.check(records)

    settings = {
        # Names and hashes, not paths: a set may be given away.
        "sources": [folder.resolve().name for folder in sources],
        "tables": [reading.account()["tables"] for reading in readings],
        "layouts": [reading.layout.name for reading in readings],
        "size": size,
        "split": policy,
        "fractions": list(fractions),
        "folds": folds,
        "straddling": straddling,
        "near_duplicates": near_duplicates,
        "seed": seed,
    }
    _claim(out, settings)
    done = store_all(found, out, size, processes)
    records = [
        replace(record, sha256=stored.sha256, width=stored.width, height=stored.height)
        for record, stored in zip(records, done, strict=True)
    ]
    links = _near_duplicates(records, out, processes) if near_duplicates else []
    torn = official.across(records, links) if policy == "official" else []
    patients = splits.groups(records)
    records = plan.deal(records, links)
    joined = _joined(links, records, patients)
    info = {
        "command": _command(
            sources,
            out=out,
            layout=layout,
            size=size,
            split=split,
            fractions=list(fractions),
            folds=folds,
            straddling=straddling,
            near_duplicates=near_duplicates,
            seed=seed,
        ),
        "settings": settings,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "sources": [reading.account() for reading in readings],
        "near_duplicates": {"pairs": links, "groups_joined": joined, "across_official_splits": torn}
        if near_duplicates
        else None,
        "counts": {name: dict(_by_class(records, name)) for name in _used(records)},
    }
    manifest.write(out, records, info)
    if near_duplicates:
        _report_near_duplicates(links, torn, joined, mend=straddling == "move")
    _report(records, readings, out, policy)


def _command(sources: Sequence[Path], **flags: Any) -> str:
    words = ["python", "-m", "dermsynth", "prepare", *(folder.resolve().name for folder in sources)]
    for name, value in flags.items():
        if value is None:
            continue
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


def _policy(
    readings: Sequence[_Reading], split: Literal["auto", "official", "grouped"], folds: int | None
) -> Literal["official", "grouped"]:
    without = [reading for reading in readings if not reading.download.official_split]
    if split == "official" and folds is not None:
        raise InputError("--folds: an official split has none. Leave --folds out, or use --split grouped.")
    if split == "official" and without:
        raise InputError(
            f"--split official: {without[0].folder} ({without[0].layout.name}) "
            "does not have all three official parts. Use --split grouped."
        )
    if split == "auto":
        return "grouped" if without or folds is not None else "official"
    return split


_Link = tuple[str, str]  # two image ids


def _near_duplicates(records: Sequence[Record], out: Path, processes: int | None) -> list[_Link]:
    ids = [record.image_id for record in records]
    thumbnails = copies.read_thumbnails([out / record.file_name for record in records], processes)
    return [(ids[one], ids[other]) for one, other in copies.find(thumbnails, processes)]


def _joined(links: Sequence[_Link], records: Sequence[Record], before: Sequence[str]) -> tuple[int, int]:
    """How many groups hold near-duplicates, before and after their links join them."""
    linked = {image_id for link in links for image_id in link}
    pairs = [(r.group, name) for r, name in zip(records, before, strict=True) if r.image_id in linked]
    return len({name for _, name in pairs}), len({name for name, _ in pairs})


def _report_near_duplicates(found: Sequence[_Link], torn: Sequence[_Link], joined: tuple[int, int], mend: bool) -> None:
    pairs = "1 pair" if len(found) == 1 else f"{len(found)} pairs"
    if not found:
        print("no near-duplicates")
        return
    print(f"\n{pairs} of near-duplicates, which join {joined[0]} groups to {joined[1]}: {_named(found)}")
    if torn:
        print(f"WARNING: {len(torn)} of these pairs lie across the official splits: {_named(torn)}")
        print(
            "  What is in train of them (or in val, where the other is in test) is taken out: split unused."
            if mend
            else "  The split is left as it is, so that images are tested on that were trained on. "
            "--straddling move takes them out of train (or val)."
        )


def _named(links: Sequence[_Link]) -> str:
    return some([f"{one} = {other}" for one, other in links])


def _claim(out: Path, settings: dict[str, Any]) -> None:
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
        raise InputError(f"--out {out}: it is not empty and prepare did not make it. Give a new folder.")
    out.mkdir(parents=True, exist_ok=True)
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
