"""What a reader is given and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dermsynth.data.sets.manifest import Record

Malignancy = Literal["indeterminate", "benign", "malignant"]
ImageTypes = Literal["dermoscopic", "all"]


@dataclass(frozen=True)
class Columns:
    """Which columns of a CSV say what; only `image` is needed, and a column that is not named is not read.

    Args:
        table: the CSV's name in the folder, if more than one lies there.
        image: the image's file: its name with or without suffix, or its path in the folder.
        label: the diagnosis, or benign and malignant.
        malignant: 0 or 1, benign or malignant; else the diagnosis decides.
        patient: who it is; all images of a patient go to one split.
        lesion: which lesion of the patient.
        sex: male or female.
        age: in years.
        site: where on the body.
        skin_tone: on whatever scale.
        split: train, val or test, the official split.
        license: of the image.
        attribution: whom to credit.
    """

    table: str = ""
    image: str = ""
    label: str = ""
    malignant: str = ""
    patient: str = ""
    lesion: str = ""
    sex: str = ""
    age: str = ""
    site: str = ""
    skin_tone: str = ""
    split: str = ""
    license: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class Choices:
    """What the user decides about reading.

    Args:
        columns: of a CSV that is no known download.
        labels: the user's word for a diagnosis -> a code, benign, malignant or unknown.
        image_types: dermoscopic leaves clinical photographs and others out where a download tells them apart.
        actinic_keratosis: what it counts as where the download does not say.
    """

    columns: Columns = Columns()
    labels: dict[str, str] = field(default_factory=dict)
    image_types: ImageTypes = "dermoscopic"
    actinic_keratosis: Malignancy = "indeterminate"


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a download: its file, and its record with hash and size still blank.

    `record.split` is the official split, or `unused` where the download has none.

    Args:
        path: of the image, or of the HDF5 file that holds it.
        record: what the manifest will say.
        member: its key in the HDF5 file; blank if `path` is the image.
    """

    path: Path
    record: Record
    member: str = ""


@dataclass(frozen=True)
class Download:
    """What a reader found in a folder.

    Args:
        images: in the order of the tables.
        tables: every CSV that was read.
        duplicates_dropped: how many images the download's own list of duplicates removed.
        files_without_row: how many images lie there that no table names; they are left out.
        notes: sentences for the user on what was left out, and why.
    """

    images: tuple[SourceImage, ...]
    tables: tuple[Path, ...]
    duplicates_dropped: int = 0
    files_without_row: int = 0
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> set[str]:
        """The official parts that are there: some of train, val and test."""
        return {image.record.split for image in self.images} - {"unused"}

    @property
    def official_split(self) -> bool:
        """Whether the download comes with a train and a test part; a val part that it lacks can be dealt."""
        return {"train", "test"} <= self.parts


@dataclass(frozen=True)
class Layout:
    """A way in which a download lies on disk.

    Args:
        name: what `--layout` calls it.
        signs: what tells it, as the user reads it: file names, any of which is enough, unless `fits` is given.
        read: from the folder to its images.
        fits: why the folder is of this layout, or None; for layouts that are told by more than a file's name.
    """

    name: str
    signs: tuple[str, ...]
    read: Callable[[Path, Choices], Download]
    fits: Callable[[Path, Choices], str | None] | None = None

    def why(self, folder: Path, choices: Choices) -> str | None:
        """Why the folder is of this layout, as `found train.csv`; None if it is not."""
        if self.fits:
            return self.fits(folder, choices)
        return next((f"found {sign}" for sign in self.signs if (folder / sign).is_file()), None)


def new_record(image_id: str, **fields: Any) -> Record:
    """A record whose image is not prepared yet: hash and size are still blank."""
    return Record(f"images/{image_id}.png", image_id, sha256="", width=0, height=0, **fields)
