"""Downloads become an image set: read, filled, split, completed and accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dermsynth.data.prepare import account, official, split_choice, splits
from dermsynth.data.prepare.image_set import (
    check_numbers,
    command,
    complete,
    fill,
    fingerprint,
    origin_of,
    refuse_inside,
)
from dermsynth.data.prepare.layouts.download import Choices
from dermsynth.data.prepare.layouts.recognise import LayoutName
from dermsynth.data.prepare.plan import Plan, Straddling
from dermsynth.data.prepare.sources import (
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
from dermsynth.data.sets.near_duplicates import find as find_near_duplicates
from dermsynth.data.sets.near_duplicates import read_thumbnails
from dermsynth.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `prepare` is asked for; its help says what each means."""

    sources: Sequence[Path]
    out: Path
    layout: LayoutName
    size: int
    split: Literal["auto", "official", "grouped"]
    fractions: tuple[float, ...]
    folds: int | None
    straddling: Straddling
    near_duplicates: bool
    seed: int
    choices: Choices
    cleaning: Cleaning
    max_broken: float
    processes: int | None


def make_set(request: Request, told: Mapping[str, Any]) -> None:
    """Make the image set, or resume one that the same command began, and print what it holds.

    Args:
        request: what to make.
        told: the settings as the command was given them, for made_from.json.

    Raises:
        InputError: a source, a flag or the folder is not what it must be.
    """
    r = request
    check_numbers(r.size, r.processes, r.max_broken)
    if not r.sources:
        raise InputError("SOURCE: name at least one folder with an ISIC download.")
    refuse_inside(r.out, r.sources)
    readings = [read_source(folder, r.layout, r.choices) for folder in r.sources]
    refuse_unused(readings, r.choices)
    policy = split_choice.choose(readings, r.split, r.folds)
    columns = r.choices.columns
    if columns.split and policy == "grouped":
        raise InputError(
            f"--columns.split {columns.split}: it would not be used, as the images are split again (--split grouped, "
            "--folds, or a source without official parts). Leave one of them out."
        )
    once = once_each(readings, official=policy == "official")
    found, known = once.images, links_by_copies(once.images, once.repeated)
    plan = Plan(policy, r.fractions, r.folds, r.straddling, r.seed)
    plan.check([image.record for image in found], known)

    accounts = [reading.account() for reading in readings]
    options: dict[str, Any] = {
        "fractions": list(r.fractions),
        "folds": r.folds,
        "straddling": r.straddling,
        "near_duplicates": r.near_duplicates,
        "seed": r.seed,
        **asdict(r.choices),
        "hair_removal": r.cleaning.hair_removal,
        "border_crop": r.cleaning.border_crop,
    }
    settings = {
        # Names and hashes, not paths: a set may be given away.
        "sources": [folder.resolve().name for folder in r.sources],
        "tables": [one["tables"] for one in accounts],
        "images": fingerprint(found),
        "layouts": [one["layout"] for one in accounts],
        "size": r.size,
        "split": policy,
        **options,
    }
    origin = origin_of("prepare", told, r.sources)
    filled = fill(found, r.out, settings, r.processes, r.max_broken, origin, r.cleaning)
    near = _near_duplicates(filled, r.out, r.processes) if r.near_duplicates else []
    twins = contradicting(filled, [*splits.identical(filled), *near])
    torn = official.across(filled, near) if policy == "official" else []
    # Broken images are dealt, too, so that one that is fixed moves no other.
    records = plan.deal(filled, known, near)
    joined = _joined(near, records, splits.groups(filled, known))
    moved = _moved(filled, records) if policy == "official" else None
    info = {
        "command": command(
            "prepare",
            r.sources,
            out=r.out,
            layout=r.layout,
            size=r.size,
            split=r.split,
            max_broken=r.max_broken,
            **options,
        ),
        "sources": accounts,
        "repeated": len(once.repeated),
        "contradictions": [*once.contradictions, *twins],
        "refined": once.refined,
        "moved": moved,
        "near_duplicates": {"pairs": near, "groups_joined": joined, "across_official_splits": torn}
        if r.near_duplicates
        else None,
    }
    records = complete(records, r.out, settings, info, origin)
    if policy == "official" and not any(image.record.split == "val" for image in found):
        val = sum(record.split == "val" for record in records)
        print(f"the official split has no val part: {val} images of train were dealt to it, the test part is as it was")
    if r.near_duplicates:
        account.print_near_duplicates(near, torn, joined, left=bool(official.across(records, near)))
    report_contradicting(twins)
    report_torn_lesions(records)
    if moved and moved["images"]:
        print(
            f"{moved['images']} images taken out (split unused), of {moved['groups']} patients, lesions or groups that "
            "lie across the official splits"
        )
    account.print_table(records, readings, policy)
    print(f"image set: {r.out}\nnext: {account.next_command(records, r.out, r.size)}")


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
