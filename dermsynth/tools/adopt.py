"""`adopt`: images that somebody else's generator made become an image set."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from dermsynth import made_from
from dermsynth.data.prepare import splits
from dermsynth.data.prepare.image_set import (
    check_numbers,
    command,
    complete,
    fill,
    fingerprint,
    origin_of,
    refuse_inside,
)
from dermsynth.data.prepare.layouts.download import Choices, Columns
from dermsynth.data.prepare.sources import contradicting, read_source, refuse_unused, report_contradicting
from dermsynth.data.sets import leaks, manifest
from dermsynth.data.sets.manifest import IMAGE_GROUP, ImageSet, train_split_sha256
from dermsynth.errors import InputError


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
    check_numbers(size, processes, max_broken)
    refuse_inside(out, [source])
    for flag, value in (("license", license), ("attribution", attribution)):
        if not value.strip():
            raise InputError(f"--{flag}: blank. Say what is known, or `unknown`.")
    of_generator = _fitted_on(fitted_on) if fitted_on else None
    columns = replace(columns, patient="", lesion="", split="")
    choices = Choices(columns, labels or {})
    reading = read_source(source, layout, choices, among=("folders", "csv"))
    refuse_unused([reading], choices)
    source_name = name or source.resolve().name
    # Not blank: that is what images of a base have that was never fitted on an image set.
    split_sha256 = train_split_sha256(of_generator.records) if of_generator else "unknown"
    images = [
        replace(
            image,
            record=replace(
                image.record,
                group=f"{IMAGE_GROUP}{image.record.image_id}",
                split=split,
                origin="synthetic",
                image_manipulation="synthetic",
                source=source_name,
                license=image.record.license or license,
                attribution=image.record.attribution or attribution,
                extra={**image.record.extra, "train_split_sha256": split_sha256},
            ),
        )
        for image in reading.download.images
    ]
    options = {
        "license": license,
        "attribution": attribution,
        "size": size,
        "split": split,
        "columns": asdict(columns),
        "labels": labels or {},
    }
    settings = {
        "source": source_name,
        "tables": reading.account()["tables"],
        "images": fingerprint(images),
        "layout": reading.layout.name,
        "fitted_on": split_sha256 if of_generator else None,
        **options,
    }
    origin = origin_of("adopt", told, [source])
    if fitted_on:
        origin[1]["inputs"]["fitted_on"] = made_from.content(fitted_on)
    filled = fill(images, out, settings, processes, max_broken, origin)
    twins = contradicting(filled, splits.identical(filled))
    flags = {"fitted_on": fitted_on, "name": name, "layout": layout, "max_broken": max_broken}
    info = {
        "command": command("adopt", [source], out=out, **flags, **options),
        "sources": [reading.account()],
        "contradictions": twins,
    }
    records = complete(filled, out, settings, info, origin)
    report_contradicting(twins)
    print(f"{len(records)} synthetic images of {source_name}, {license}: {out}")
    if of_generator:  # a completed set, as its rows are what the message asks to take out
        leaks.check(of_generator, [manifest.read(out)], ())
    allowed = "" if of_generator else f' --data.allow_foreign "[{out.name}]"'
    print(f'next: give them to fit, as --data.synthetic "[{out}]"{allowed}')


def _fitted_on(folder: Path) -> ImageSet:
    """The image set of that name, if a generator may have been fitted on its train split."""
    images = manifest.read(folder)
    if any(record.origin != "real" for record in images.records):
        raise InputError(
            f"--fitted_on {folder}: it holds generated images. Give the real set that the generator was fitted on."
        )
    if not images.split("train"):
        raise InputError(f"--fitted_on {folder}: none of its images is in train, so nothing can be fitted on it.")
    return images
