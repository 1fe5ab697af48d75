"""Groups under an official split, which was made by others and may tear near-duplicates, lesions or patients apart."""

from collections.abc import Sequence

from dermsynth.data.prepare.splits import SPLIT_NAMES, Link, groups
from dermsynth.data.sets.manifest import Record
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError


def keep(records: Sequence[Record], known: Sequence[Link], near: Sequence[Link]) -> list[str]:
    """The groups under an official split that stays as it is: near-duplicates across its splits join nothing.

    Args:
        records: with their official `split`.
        known: pairs of image ids of one patient or lesion that the records themselves do not say it of.
        near: pairs of image ids of near-duplicates.

    Returns:
        The group of each record, in order.

    Raises:
        InputError: a patient or lesion lies in two splits.
    """
    names = groups(records, known)
    torn = _straddling(records, names)
    if torn:
        images = [f"{r.image_id} ({r.split})" for r, name in zip(records, names, strict=True) if name in torn]
        raise InputError(
            f"--split official: {len(torn)} patients or lesions lie in several of its splits: {some(images)}. Leave "
            "only their test (or else validation) images in with --straddling move, or split all images again with "
            "--split grouped."
        )
    split_of = {record.image_id: record.split for record in records}
    # Unused images do not join either: two of them may be of patients in different splits.
    within = [(one, other) for one, other in near if split_of[one] == split_of[other] != "unused"]
    return groups(records, [*known, *within])


def move(records: Sequence[Record], links: Sequence[Link]) -> tuple[list[str], list[str]]:
    """Groups and splits such that no group straddles the official split and its test images stay what they are.

    Of a group that straddles, only the images in the split that counts most (test, then val) stay; the others become
    `unused`. Moving test images to train would make another test set, whose numbers cannot be compared with anybody's.

    Args:
        records: with their official `split`.
        links: pairs of image ids that belong together for another reason than the patients and lesions of the
            records, such as being near-duplicates.

    Returns:
        The group and the split of each record, in order.
    """
    names = groups(records, links)
    torn = _straddling(records, names)
    kept = {name: max(places, key=SPLIT_NAMES.index) for name, places in torn.items()}
    splits = [
        "unused" if kept.get(name, record.split) != record.split else record.split
        for name, record in zip(names, records, strict=True)
    ]
    return names, splits


def across(records: Sequence[Record], links: Sequence[Link]) -> list[Link]:
    """The links of which one image is in another one of train, val and test than the other."""
    split_of = {record.image_id: record.split for record in records if record.split in SPLIT_NAMES}
    return [
        (one, other)
        for one, other in links
        if one in split_of and other in split_of and split_of[one] != split_of[other]
    ]


def _straddling(records: Sequence[Record], group_names: Sequence[str]) -> dict[str, set[str]]:
    """The groups that lie in several of train, val and test, and in which."""
    found: dict[str, set[str]] = {}
    for record, name in zip(records, group_names, strict=True):
        if record.split in SPLIT_NAMES:
            found.setdefault(name, set()).add(record.split)
    return {name: places for name, places in found.items() if len(places) > 1}
