"""`prepare`: ISIC downloads, and other sets like them, become an image set."""

from pathlib import Path
from typing import Literal

from dermsynth import made_from
from dermsynth.data.prepare.downloads import Request, make_set
from dermsynth.data.prepare.layouts.download import Choices, Columns, ImageTypes, Malignancy
from dermsynth.data.prepare.layouts.recognise import LayoutName
from dermsynth.data.prepare.plan import Straddling
from dermsynth.data.sets.cleaning import Cleaning


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
    request = Request(
        sources=sources,
        out=out,
        layout=layout,
        size=size,
        split=split,
        fractions=tuple(fractions),
        folds=folds,
        straddling=straddling,
        near_duplicates=near_duplicates,
        seed=seed,
        choices=Choices(columns, labels or {}, image_types, actinic_keratosis),
        cleaning=Cleaning(hair_removal, border_crop),
        max_broken=max_broken,
        processes=processes,
    )
    make_set(request, told)
