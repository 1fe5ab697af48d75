"""What `prepare` prints of a set that it made."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dermsynth.data.prepare.image_set import used_splits
from dermsynth.data.prepare.sources import Reading
from dermsynth.data.prepare.splits import Link
from dermsynth.data.sets.manifest import Record
from dermsynth.data.sets.name_lists import some

_VIT_B16 = 224  # pixels of its images
_FEW_MALIGNANT = 10  # images of a split: one of them is a tenth of its sensitivity


def print_near_duplicates(found: Sequence[Link], torn: Sequence[Link], joined: tuple[int, int], left: bool) -> None:
    """Name the pairs that were found.

    Args:
        found: all of them.
        torn: those that lie across the official splits.
        joined: how many groups hold them, before and after their links join them.
        left: whether any still lies across the official splits.
    """
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


def print_table(records: Sequence[Record], readings: Sequence[Reading], policy: str) -> None:
    """Images of each class in each split, patients and groups; and what is left out."""
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


def next_command(records: Sequence[Record], out: Path, size: int) -> str:
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
