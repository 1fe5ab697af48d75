"""The card of an image set: with it `datasets.load_dataset(SET)` has the set's own splits, and a label.

Without it that library takes every image of a folder for training, test patients among them. It reads a table a split,
which the card names; the tables are JSON lines, as a column of a CSV has another type where its cells are blank.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from dermsynth.data.sets import data_card

if TYPE_CHECKING:  # manifest.py writes cards
    from dermsynth.data.sets.manifest import Record

CARD = "README.md"
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def files(records: "Sequence[Record]", info: Mapping[str, Any]) -> dict[str, str]:
    """The files of a set's card, by name, each with its text.

    Args:
        records: of the set.
        info: what dataset.json says of it.
    """
    # Images that are in no split are shown only where there are no others.
    used = [name for name in _SPLITS if any(record.split == name for record in records)] or ["unused"]
    tables = {name: f"metadata-{name}.jsonl" for name in used}
    folders = sorted({PurePosixPath(record.file_name).parent.as_posix() for record in records})
    images = [f"{folder}/*" if folder != "." else "*" for folder in folders]
    lines = ["---", "configs:", "- config_name: default", f"  metadata_filenames: {json.dumps(list(tables.values()))}"]
    lines.append("  data_files:")
    for name, table in tables.items():
        lines += [f"  - split: {_SPLITS.get(name, name)}", f"    path: {json.dumps([table, *images])}"]
    licenses = "; ".join(sorted({record.license for record in records if record.license})) or "unknown"
    credit = "; ".join(sorted({record.attribution for record in records if record.attribution})) or "unknown"
    synthetic = any(record.origin == "synthetic" for record in records)
    title, kind = ("# Synthetic image set", "synthetic images") if synthetic else ("# Image set", "images")
    lines += [
        "---",
        title,
        "",
        f"{len(records)} {kind} of skin lesions. Licence: {licenses}. Attribution: {credit}.",
        "",
        "`datasets.load_dataset` of this folder gives the splits of `metadata.csv`, which has all that is known of",
        "each image; no patient, lesion or file is in two of them. `dataset.json` says how the set was made.",
        "Do not open it as `imagefolder` with `data_dir`, which knows nothing of splits.",
        "",
    ]
    if synthetic:
        lines += data_card.lines(records, info)
    text = {CARD: "\n".join(lines)}
    for name, table in tables.items():
        rows = [
            {
                "file_name": record.file_name,
                "image_id": record.image_id,
                "label": record.diagnosis or record.class_name("malignant") or "unknown",
            }
            for record in records
            if record.split == name
        ]
        text[table] = "".join(f"{json.dumps(row)}\n" for row in rows)
    return text
