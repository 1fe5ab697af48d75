"""`adopt`: images that somebody else's generator made become an image set."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from dermsynth import made_from
from dermsynth.data.prepare.adopted import Adoption, make_set
from dermsynth.data.prepare.layouts.download import Choices, Columns


def adopt(
    source: Path,
    out: Path,
    license: str,
    attribution: str,
    fitted_on: Path | None = None,
    name: str | None = None,
    layout: Literal["auto", "folders", "csv"] = "auto",
    size: int = 512,
    split: Literal["train", "unused"] = "train",
    columns: Columns = Columns(),  # noqa: B008 (it is frozen)
    labels: dict[str, str] | None = None,
    processes: int | None = None,
    max_broken: float = 0.01,
) -> None:
    """Make an image set out of synthetic images that were generated elsewhere, such as those of Derm-T2IM.

    They go through the same resizing and the same encoder as real images, so that neither tells them apart. With
    --fitted_on they are held to the same rules on leaks as images of our own generators. Without it nobody here knows
    which patients their generator saw, so train_split_sha256 says unknown, and a classifier or DreamBooth takes the set
    only if it is named in data.allow_foreign.

    Args:
        source: folder with a folder a class, or with a CSV.
        out: folder of the image set; new, or one that the same command began.
        license: of the images, as CC-BY-4.0.
        attribution: whom to credit, with a link or DOI.
        fitted_on: image set whose train split, and nothing else of it, the generator was fitted on. The images take its
            train_split_sha256, and near-copies of what it validates or tests on are refused.
        name: of where they come from, which metadata.csv has as their source; else the source folder's name.
        layout: folders or csv; auto recognises it by its files.
        size: pixels of the short side; the aspect is kept.
        split: train, or unused for a set that is only to be looked at; synthetic images are never validated or
            tested on, whatever a CSV or a folder's name says.
        columns: of the CSV; those of patient, lesion and split are not read.
        labels: what the words in its label column, or the names of class folders, mean, as --labels.naevus NV; a
            diagnosis code or name, benign, malignant or unknown.
        processes: that decode at the same time; one for each core if not given.
        max_broken: share of the images, from 0 to 1, that may be unreadable; more are an error.
    """
    told = made_from.settings(locals(), inputs=["source", "fitted_on"])
    adoption = Adoption(
        source=source,
        out=out,
        license=license,
        attribution=attribution,
        fitted_on=fitted_on,
        name=name,
        layout=layout,
        size=size,
        split=split,
        choices=Choices(replace(columns, patient="", lesion="", split=""), labels or {}),
        processes=processes,
        max_broken=max_broken,
    )
    make_set(adoption, told)
