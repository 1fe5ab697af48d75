"""`prepare`: ISIC downloads, and other sets like them, become an image set."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from dermsynth import made_from
from dermsynth.data.prepare import official, splits
from dermsynth.data.prepare.image_set import (
    check_numbers,
    command,
    complete,
    fill,
    fingerprint,
    origin_of,
    refuse_inside,
    used_splits,
)
from dermsynth.data.prepare.layouts.download import Choices, Columns, ImageTypes, Malignancy
from dermsynth.data.prepare.layouts.recognise import LayoutName
from dermsynth.data.prepare.plan import Plan, Straddling
from dermsynth.data.prepare.sources import (
    Reading,
    contradicting,
    links_by_copies,
    once_each,
    read_source,
    refuse_unused,
    report_contradicting,
    report_torn_lesions,
)
from dermsynth.data.prepare.splits import Link
from dermsynth.data.sets.cleaning import Cleaning
from dermsynth.data.sets.manifest import Record
from dermsynth.data.sets.name_lists import some
from dermsynth.data.sets.near_duplicates import find as find_near_duplicates
from dermsynth.data.sets.near_duplicates import read_thumbnails
from dermsynth.errors import InputError

_VIT_B16 = 224  # pixels of its images
_FEW_MALIGNANT = 10  # images of a split: one of them is a tenth of its sensitivity


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
    image_types: ImageTypes = "dermoscopic",
    actinic_keratosis: Malignancy = "indeterminate",
    columns: Columns = Columns(),  # noqa: B008 (it is frozen)
    labels: dict[str, str] | None = None,
    hair_removal: bool = False,
    border_crop: bool = False,
    max_broken: float = 0.01,
    processes: int | None = None,
) -> None:
    """Make an image set out of one or more ISIC downloads, or of any images with a folder a class or a CSV.

    The images are turned upright, resized once and stored as PNG; metadata.csv is written last, so a folder
    that has it is complete. After a kill the same command resumes where it stopped. Files that cannot be read are
    left out and listed in quarantine.csv; once they are fixed, the same command takes them in. An image that several
    sources hold, as the ISIC challenges do, is taken once, as the first of them has it.

    Args:
        sources: folders with downloads as unpacked.
        out: folder of the image set; new, or one that the same command began.
        layout: how the downloads lie on disk; auto recognises it by their files.
        size: pixels of the short side; the aspect is kept.
        split: official is the download's own; grouped deals whole patients (else lesions, else images) with
            each class in proportion; auto takes the official one where every source has one, else grouped. Where an
            official split has train and test only, val is dealt from train.
        fractions: shares of the images in train, val and test of a grouped split. Images of a download's test part
            that have no label, as those of ISIC 2020, stay in test and do not count.
        folds: deal whole groups to so many folds instead and note them in the column fold; data.fold chooses the
            one to test on, the next one is for validation, and the column split is that of fold 0.
        straddling: what to do with images of one group that lie across an official split. report names
            near-duplicates, leaves the split as it is, and refuses patients and lesions in several splits; move takes
            all images of such a group out (unused) but those in test, or, where it has none there, in val.
        near_duplicates: whether to look for images that are copies of one photograph; they stay in one
            split, unless the split is the official one and straddling is report.
        seed: random seed of a grouped split or of folds.
        image_types: dermoscopic leaves out clinical photographs and others, where the download tells them apart
            (archive, MILK10k).
        actinic_keratosis: what AK, and AKIEC with it, counts as where the download does not say; indeterminate
            leaves it out of benign against malignant.
        columns: of a CSV that is no known download.
        labels: what the words in its label column, or the names of class folders, mean, as --labels.naevus NV; a
            diagnosis code or name, benign, malignant or unknown.
        hair_removal: paint over hairs (DullRazor).
        border_crop: cut off a black frame and the corners of a round field of view.
        max_broken: share of the images, from 0 to 1, that may be unreadable; more are an error.
        processes: that decode at the same time; one for each core if not given.
    """
    told = made_from.settings(locals(), inputs=["sources"])
    check_numbers(size, processes, max_broken)
    if not sources:
        raise InputError("SOURCE: name at least one folder with an ISIC download.")
    choices = Choices(columns, labels or {}, image_types, actinic_keratosis)
    refuse_inside(out, sources)
    readings = [read_source(folder, layout, choices) for folder in sources]
    refuse_unused(readings, choices)
    policy = _policy(readings, split, folds)
    if columns.split and policy == "grouped":
        raise InputError(
            f"--columns.split {columns.split}: it would not be used, as the images are split again (--split grouped, "
            "--folds, or a source without official parts). Leave one of them out."
        )
    once = once_each(readings, official=policy == "official")
    found, known = once.images, links_by_copies(once.images, once.repeated)
    plan = Plan(policy, tuple(fractions), folds, straddling, seed)
    plan.check([image.record for image in found], known)

    accounts = [reading.account() for reading in readings]
    options: dict[str, Any] = {
        "fractions": list(fractions),
        "folds": folds,
        "straddling": straddling,
        "near_duplicates": near_duplicates,
        "seed": seed,
        **asdict(choices),
        "hair_removal": hair_removal,
        "border_crop": border_crop,
    }
    settings = {
        # Names and hashes, not paths: a set may be given away.
        "sources": [folder.resolve().name for folder in sources],
        "tables": [account["tables"] for account in accounts],
        "images": fingerprint(found),
        "layouts": [account["layout"] for account in accounts],
        "size": size,
        "split": policy,
        **options,
    }
    origin = origin_of("prepare", told, sources)
    filled = fill(found, out, settings, processes, max_broken, origin, Cleaning(hair_removal, border_crop))
    near = _near_duplicates(filled, out, processes) if near_duplicates else []
    twins = contradicting(filled, [*splits.identical(filled), *near])
    torn = official.across(filled, near) if policy == "official" else []
    # Broken images are dealt, too, so that one that is fixed moves no other.
    records = plan.deal(filled, known, near)
    joined = _joined(near, records, splits.groups(filled, known))
    moved = _moved(filled, records) if policy == "official" else None
    info = {
        "command": command(
            "prepare", sources, out=out, layout=layout, size=size, split=split, max_broken=max_broken, **options
        ),
        "sources": accounts,
        "repeated": len(once.repeated),
        "contradictions": [*once.contradictions, *twins],
        "refined": once.refined,
        "moved": moved,
        "near_duplicates": {"pairs": near, "groups_joined": joined, "across_official_splits": torn}
        if near_duplicates
        else None,
    }
    records = complete(records, out, settings, info, origin)
    if policy == "official" and not any(image.record.split == "val" for image in found):
        val = sum(record.split == "val" for record in records)
        print(f"the official split has no val part: {val} images of train were dealt to it, the test part is as it was")
    if near_duplicates:
        _report_near_duplicates(near, torn, joined, left=bool(official.across(records, near)))
    report_contradicting(twins)
    report_torn_lesions(records)
    if moved and moved["images"]:
        print(
            f"{moved['images']} images taken out (split unused), of {moved['groups']} patients, lesions or groups that "
            "lie across the official splits"
        )
    _report(records, readings, out, policy)
    print(f"image set: {out}\nnext: {_next(records, out, size)}")


def _policy(
    readings: Sequence[Reading], split: Literal["auto", "official", "grouped"], folds: int | None
) -> Literal["official", "grouped"]:
    without = _without_official_split(readings)
    if split == "official" and folds is not None:
        raise InputError("--folds: an official split has none. Leave --folds out, or use --split grouped.")
    if split == "official" and without:
        raise InputError(
            f"--split official: {without[0].folder} ({without[0].layout.name}) "
            "has no official train and test parts. Use --split grouped."
        )
    if split == "auto":
        split = "grouped" if without or folds is not None else "official"
        if split == "grouped" and folds is None and len(without) < len(readings):
            print(f"grouped split: {without[0].folder} ({without[0].layout.name}) has no official train and test parts")
    if split == "grouped":
        _warn_of_lost_parts(readings, folds)
    return split


def _without_official_split(readings: Sequence[Reading]) -> list[Reading]:
    """The sources that lack a train or a test part, also with the other sources of their layout.

    A challenge may be unpacked into a folder for each part. Parts of two challenges make no split: the later ones
    train on what the earlier ones tested on.
    """
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for reading in readings:
        parts[reading.layout.name] |= reading.download.parts
    return [r for r in readings if not r.download.parts or not {"train", "test"} <= parts[r.layout.name]]


def _warn_of_lost_parts(readings: Sequence[Reading], folds: int | None) -> None:
    """Say whose official val and test images are dealt with the others; without labels, test stays test by shares."""
    for reading in readings:
        records = [image.record for image in reading.download.images]
        labelled = [r for r in records if folds is not None or r.diagnosis or r.malignant is not None]
        if lost := sorted({record.split for record in labelled} & {"val", "test"}):
            print(
                f"WARNING: {reading.folder}: its official split is not kept, so images of its {' and '.join(lost)} "
                "part may be trained on"
            )


def _near_duplicates(records: Sequence[Record], out: Path, processes: int | None) -> list[Link]:
    whole = [record for record in records if record.sha256]
    ids = [record.image_id for record in whole]
    thumbnails = read_thumbnails([out / record.file_name for record in whole], processes)
    return [(ids[one], ids[other]) for one, other in find_near_duplicates(thumbnails, processes)]


def _joined(links: Sequence[Link], records: Sequence[Record], before: Sequence[str]) -> tuple[int, int]:
    """How many groups hold near-duplicates, before and after their links join them."""
    linked = {image_id for link in links for image_id in link}
    pairs = [(r.group, name) for r, name in zip(records, before, strict=True) if r.image_id in linked]
    return len({name for _, name in pairs}), len({name for name, _ in pairs})


def _moved(before: Sequence[Record], after: Sequence[Record]) -> dict[str, int]:
    """How many images a corrected official split lost, and of how many groups."""
    groups = [
        new.group for old, new in zip(before, after, strict=True) if new.sha256 and new.split == "unused" != old.split
    ]
    return {"images": len(groups), "groups": len(set(groups))}


def _report_near_duplicates(found: Sequence[Link], torn: Sequence[Link], joined: tuple[int, int], left: bool) -> None:
    pairs = "1 pair" if len(found) == 1 else f"{len(found)} pairs"
    if not found:
        print("no near-duplicates")
        return
    kept = "" if left else ", each kept in one split"
    print(
        f"\n{pairs} of near-duplicates, whose groups are joined: {joined[0]} become {joined[1]}{kept}: {_named(found)}"
    )
    if torn:
        print(f"{'WARNING: ' if left else ''}{len(torn)} of these pairs lie across the official splits: {_named(torn)}")
        if left:
            print(
                "  The split is left as it is, so that images are tested on that were trained on. "
                "--straddling move takes such groups out of train (and val)."
            )


def _named(links: Sequence[Link]) -> str:
    return some([f"{one} = {other}" for one, other in links])


def _report(records: Sequence[Record], readings: Sequence[Reading], out: Path, policy: str) -> None:
    classes = [name for name, _ in Counter(record.diagnosis or "unknown" for record in records).most_common()]
    columns = [*classes, "malignant", "benign", "images", "groups"]
    widths = [max(7, len(name) + 2) for name in columns]
    print(f"\n{'split':<8}" + "".join(f"{name:>{w}}" for name, w in zip(columns, widths, strict=True)))
    for name in [*used_splits(records), "all"]:
        chosen = [record for record in records if name in (record.split, "all")]
        counts = Counter(record.diagnosis or "unknown" for record in chosen)
        malignant = Counter(record.malignant for record in chosen)
        cells = [counts[c] for c in classes]
        cells += [malignant[1], malignant[0], len(chosen), len({record.group for record in chosen})]
        print(f"{name:<8}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))
    patients = len({record.patient_id for record in records if record.patient_id})
    print(f"\n{policy} split; {patients or 'no'} patient ids")
    shares = [
        f"{name} {100 * sum(r.split == name for r in records) / len(records):.1f} %" for name in used_splits(records)
    ]
    print(f"shares of the images: {', '.join(shares)}")
    held = Counter(record.split for record in records if record.malignant)
    few = [f"{name} {held[name]}" for name in ("val", "test") if held[name] < _FEW_MALIGNANT]
    if held and few:
        print(f"WARNING: few malignant images to measure by ({', '.join(few)}): metrics of so few are mostly chance")
    largest = max(Counter(record.group for record in records).values())
    groups = len({record.group for record in records})
    if largest * 10 > len(records) and largest * groups > 5 * len(records):
        print(
            f"WARNING: one patient, lesion or group holds {largest} of {len(records)} images. Does its id "
            "stand for unknown? Blank it in the table then"
        )
    if dropped := sum(reading.download.duplicates_dropped for reading in readings):
        print(f"{dropped} listed duplicates dropped")
    if extra := sum(reading.download.files_without_row for reading in readings):
        print(f"{extra} image files left out that no table names")


def _next(records: Sequence[Record], out: Path, size: int) -> str:
    """The training of a classifier, with the recipe for images of this size."""
    # Where diagnoses are mostly unknown, malignancy is what can be learnt.
    counts = Counter(record.diagnosis for record in records if record.diagnosis)
    few = 2 * counts.total() < len(records)
    labels = ["benign", "malignant"] if few else [name for name, _ in counts.most_common()]
    recipe = "configs/vit_b16.yaml" if size >= _VIT_B16 else "configs/tiny/vit.yaml"
    return (
        f"python -m dermsynth fit --config {recipe} --data.real {shlex.quote(str(out))} "
        f'--data.classes "[{", ".join(labels)}]" --run {shlex.quote(f"runs/{out.resolve().name}-seed0")}'
    )
