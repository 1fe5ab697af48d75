"""The table of diagnoses: code, name, malignant or not, and the phrase used in prompts.

Codes are those of the ISIC 2019 challenge; `SK`, `LK`, `SL`, `CALM` and `AMP` name diagnoses that ISIC 2017 and
ISIC 2020 give and that 2019 folds into `BKL`, `NV` or nothing. `AKIEC` is the coarser class of HAM10000, ISIC 2018 and
MILK10k: of the 327 such images in HAM10000, ISIC 2019 calls 130 `AK` and 197 `SCC`. Every reader maps its own words to
these codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dermsynth.errors import InputError


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis.

    Args:
        code: what metadata.csv holds.
        name: the usual English name, lower case.
        malignant: None where experts and the archive disagree or call it indeterminate.
        phrase: what a prompt calls it, without an article.
    """

    code: str
    name: str
    malignant: bool | None
    phrase: str


def _table(*rows: tuple[str, str, bool | None]) -> dict[str, Diagnosis]:
    return {code: Diagnosis(code, name, malignant, name) for code, name, malignant in rows}


DIAGNOSES: dict[str, Diagnosis] = _table(
    ("MEL", "melanoma", True),
    ("NV", "nevus", False),
    ("BCC", "basal cell carcinoma", True),
    ("SCC", "squamous cell carcinoma", True),
    # The archive calls actinic keratosis "indeterminate"; `prepare --actinic_keratosis` decides otherwise.
    ("AK", "actinic keratosis", None),
    ("AKIEC", "actinic keratosis or intraepithelial carcinoma", None),
    ("BKL", "benign keratosis", False),
    ("SK", "seborrheic keratosis", False),
    ("LK", "lichenoid keratosis", False),
    ("SL", "solar lentigo", False),
    ("DF", "dermatofibroma", False),
    ("VASC", "vascular lesion", False),
    ("CALM", "cafe-au-lait macule", False),
    ("AMP", "atypical melanocytic proliferation", None),
)

#: Diagnoses that one data set tells apart and another gives as one.
COARSE: dict[str, frozenset[str]] = {"BKL": frozenset({"SK", "LK", "SL"}), "AKIEC": frozenset({"AK", "SCC"})}

BENIGN, MALIGNANT = "benign", "malignant"
MALIGNANCY_CLASSES = (BENIGN, MALIGNANT)


def malignancy(code: str) -> int | None:
    """What `metadata.csv` says of a diagnosis: 1 for malignant, 0 for benign, None if blank or disputed."""
    malignant = DIAGNOSES[code].malignant if code else None
    return None if malignant is None else int(malignant)


def agree(first: str, second: str) -> bool:
    """Whether two codes can be said of one image: the same, one of them blank, or one coarser than the other."""
    return (
        first == second or not (first and second) or second in COARSE.get(first, ()) or first in COARSE.get(second, ())
    )


def phrase(class_name: str) -> str:
    """Words for a class in a prompt: a diagnosis by its name, `benign` and `malignant` as a skin lesion.

    Raises:
        KeyError: the class is neither a diagnosis code nor `benign` or `malignant`.
    """
    if class_name in MALIGNANCY_CLASSES:
        return f"{class_name} skin lesion"
    return DIAGNOSES[class_name].phrase


def label_by(classes: Sequence[str]) -> str:
    """How a list of classes labels a record: by `malignant` (benign and malignant) or by `diagnosis` (codes).

    Raises:
        InputError: fewer than one class, a repeated or unknown one, or the two kinds mixed.
    """
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"classes: {list(classes)} is empty or repeats a class.")
    if set(classes) <= set(MALIGNANCY_CLASSES):
        return "malignant"
    unknown = [name for name in classes if name not in DIAGNOSES]
    if unknown:
        raise InputError(
            f"classes: {', '.join(unknown)} not known. Give benign and malignant, or diagnosis codes out of "
            f"{', '.join(DIAGNOSES)}."
        )
    return "diagnosis"
