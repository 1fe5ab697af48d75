"""Images that somebody else's generator made become an image set."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from dermsynth.data.prepare.layouts.download import Choices, SourceImage
from dermsynth.data.prepare.sources import contradicting, read_source, refuse_unused, report_contradicting
from dermsynth.data.sets import leaks, manifest
from dermsynth.data.sets.manifest import IMAGE_GROUP, ImageSet, train_split_sha256
from dermsynth.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What `adopt` is asked for; its help says what each means."""

    source: Path
    out: Path
    license: str
    attribution: str
    fitted_on: Path | None
    name: str | None
    layout: Literal["auto", "folders", "csv"]
    size: int
    split: Literal["train", "unused"]
    choices: Choices
    processes: int | None
    max_broken: float

    @property
    def source_name(self) -> str:
        """Where the images come from, in metadata.csv."""
        return self.name or self.source.resolve().name

    def adopted(self, image: SourceImage, fitted_on: str) -> SourceImage:
        """The image as a synthetic one, which is a group of its own.

        Args:
            image: as it was read.
            fitted_on: hash of the train split that its generator was fitted on, or `unknown`.
        """
        record = replace(
            image.record,
            group=f"{IMAGE_GROUP}{image.record.image_id}",
            split=self.split,
            origin="synthetic",
            image_manipulation="synthetic",
            source=self.source_name,
            license=image.record.license or self.license,
            attribution=image.record.attribution or self.attribution,
            extra={**image.record.extra, "train_split_sha256": fitted_on},
        )
        return replace(image, record=record)


def make_set(adoption: Adoption, told: Mapping[str, Any]) -> None:
    """Make the image set, or resume one that the same command began, and print what to do with it.

    Args:
        adoption: what to make.
        told: the settings as the command was given them, for made_from.json.

    Raises:
        InputError: the source, a flag or the folder is not what it must be.
    """
    a = adoption
    check_numbers(a.size, a.processes, a.max_broken)
    refuse_inside(a.out, [a.source])
    for flag, value in (("license", a.license), ("attribution", a.attribution)):
        if not value.strip():
            raise InputError(f"--{flag}: blank. Say what is known, or `unknown`.")
    of_generator = _fitted_on(a.fitted_on) if a.fitted_on else None
    reading = read_source(a.source, a.layout, a.choices, among=("folders", "csv"))
    refuse_unused([reading], a.choices)
    # Not blank: that is what images of a base have that was never fitted on an image set.
    split_sha256 = train_split_sha256(of_generator.records) if of_generator else "unknown"
    images = [a.adopted(image, split_sha256) for image in reading.download.images]
    options = {
        "license": a.license,
        "attribution": a.attribution,
        "size": a.size,
        "split": a.split,
        "columns": asdict(a.choices.columns),
        "labels": a.choices.labels,
    }
    settings = {
        "source": a.source_name,
        "tables": reading.account()["tables"],
        "images": fingerprint(images),
        "layout": reading.layout.name,
        "fitted_on": split_sha256 if of_generator else None,
        **options,
    }
    origin = origin_of("adopt", told, [a.source])
    if a.fitted_on:
        origin[1]["inputs"]["fitted_on"] = made_from.content(a.fitted_on)
    filled = fill(images, a.out, settings, a.processes, a.max_broken, origin)
    twins = contradicting(filled, splits.identical(filled))
    flags = {"fitted_on": a.fitted_on, "name": a.name, "layout": a.layout, "max_broken": a.max_broken}
    info = {
        "command": command("adopt", [a.source], out=a.out, **flags, **options),
        "sources": [reading.account()],
        "contradictions": twins,
    }
    records = complete(filled, a.out, settings, info, origin)
    report_contradicting(twins)
    print(f"{len(records)} synthetic images of {a.source_name}, {a.license}: {a.out}")
    if of_generator:  # a completed set, as its rows are what the message asks to take out
        leaks.check(of_generator, [manifest.read(a.out)], ())
    allowed = "" if of_generator else f' --data.allow_foreign "[{a.out.name}]"'
    print(f'next: give them to fit, as --data.synthetic "[{a.out}]"{allowed}')


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
