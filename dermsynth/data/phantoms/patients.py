"""The embedded data set: drawn lesions of invented patients in the layout of ISIC 2020 as Kaggle gives it.

It lets every command be learnt, tested and debugged without a download; it says nothing about medicine.

How hard it is to tell malignant from benign is known by construction. Behind each of the four ABCD
properties stands one standard normal number, which lies `SHIFT` higher in malignant lesions. The four are
independent, so the best possible classifier that is told all four has an AUROC of Φ(√2 · SHIFT), and one that
sees pixels has less.

Image k is a function of (seed, k): a set of more patients begins with the same images, and one drawn at
another size shows the same lesions.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dermsynth import made_from
from dermsynth.data.phantoms.drawing import Lesion, Skin, draw
from dermsynth.data.sets.images import LARGEST_SIZE
from dermsynth.errors import InputError
from dermsynth.files import make_folder, write_atomically, write_bytes_atomically

COLUMNS = (
    "image_name",
    "patient_id",
    "sex",
    "age_approx",
    "anatom_site_general_challenge",
    "diagnosis",
    "benign_malignant",
    "target",
)
DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
SHIFT = 1.3  # the best possible AUROC is 0.967
_MOST_PATIENTS = 1_000_000  # all are planned before the first is drawn
MOST_IMAGES = 20  # of one patient
DUPLICATE_EVERY = 8  # the last image of each 8th patient is a second export of the first

# Counts of ISIC 2020; the blanks are kept, and somewhat more frequent so that a small set has some.
SITES = {
    "torso": 16845,
    "lower extremity": 8417,
    "upper extremity": 4983,
    "head/neck": 1855,
    "palms/soles": 375,
    "oral/genital": 124,
    "": 1000,
}


@dataclass(frozen=True)
class Patient:
    """Whom several images belong to.

    Args:
        number: from 0.
        sex: male, female or blank.
        age: years in steps of five, as text, or blank.
        images: how many, 1 to `MOST_IMAGES`.
        skin: that all of them show.
    """

    number: int
    sex: str
    age: str
    images: int
    skin: Skin


@dataclass(frozen=True)
class Phantom:
    """One image to draw.

    Args:
        number: k, from 0.
        patient: whose it is.
        malignant: the label.
        diagnosis: as ISIC 2020 writes it.
        site: of the body, or blank.
        lesion: what to draw.
        copy_of: the number of the image that this one is a second export of, or None.
    """

    number: int
    patient: Patient
    malignant: bool
    diagnosis: str
    site: str
    lesion: Lesion
    copy_of: int | None = None

    @property
    def name(self) -> str:
        """Not an `ISIC_…` name: it could be that of a real image."""
        return _name(self.number)

    def row(self) -> dict[str, str | int]:
        """The image's line in `train.csv`."""
        return {
            "image_name": self.name,
            "patient_id": f"PHANTOM_PATIENT_{self.patient.number:05d}",
            "sex": self.patient.sex,
            "age_approx": self.patient.age,
            "anatom_site_general_challenge": self.site,
            "diagnosis": self.diagnosis,
            "benign_malignant": "malignant" if self.malignant else "benign",
            "target": int(self.malignant),
        }


def plan(patients: int, seed: int, malignant_share: float) -> tuple[Phantom, ...]:
    """Everything about a set but its pixels.

    Args:
        patients: how many.
        seed: of everything.
        malignant_share: probability that an image's lesion is malignant; 0.0176 in ISIC 2020.
    """
    return tuple(_plan(patients, seed, malignant_share))


def write(
    out: Path, patients: int, seed: int, size: int, malignant_share: float, entry: made_from.Entry | None = None
) -> tuple[Phantom, ...]:
    """Draw a set into a folder; `train.csv` comes last, so a folder that has it is complete.

    Args:
        out: new or empty, or one in which a call with the same entry was broken off.
        patients: from 1 to a million.
        seed: of everything.
        size: height and width of the images, from 16 to 8,192 pixels.
        malignant_share: probability that a lesion is malignant.
        entry: for the folder's made_from.json; written before all else, so that the same call resumes a broken-off one.

    Returns:
        What was drawn, in the order of `train.csv`.

    Raises:
        InputError: a number is out of its range, or `out` is a file or holds something, or cannot be written to.
    """
    check_numbers(patients, seed, size, malignant_share)
    begun = bool(entry) and not (out / "train.csv").exists() and made_from.read(out).get("phantoms") == entry
    if not begun and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and is not an empty folder. Remove it or name another.")
    phantoms = plan(patients, seed, malignant_share)
    # New: of two commands at once, which both found the folder empty, one makes it and the other is refused.
    make_folder(out / "train", new=not begun)
    if entry:
        made_from.write(out, "phantoms", entry)
    # One by one: at 128 pixels an image takes 4 ms, and threads made it no faster.
    for phantom in tqdm(phantoms, "drawing", unit="image", disable=None):
        path = out / "train" / f"{phantom.name}.jpg"
        pixels = picture(phantom, seed, size)[..., ::-1]
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        write_bytes_atomically(path, encoded.tobytes(), sync=False)
    pairs = [(_name(p.copy_of), p.name) for p in phantoms if p.copy_of is not None]
    _write_csv(out / DUPLICATES, ("image_name_1", "image_name_2"), pairs)
    _write_csv(out / "train.csv", COLUMNS, [tuple(p.row().values()) for p in phantoms])
    return phantoms


def check_numbers(patients: int, seed: int, size: int, malignant_share: float) -> None:
    """Refuse numbers that no set can be drawn with. For the arguments see `write`.

    Raises:
        InputError: a number is out of its range.
    """
    _check("patients", patients, 1 <= patients <= _MOST_PATIENTS, f"1 to {_MOST_PATIENTS:,}")
    _check("seed", seed, seed >= 0, "0 or more")
    _check("size", size, 16 <= size <= LARGEST_SIZE, f"16 to {LARGEST_SIZE} pixels")
    _check("malignant_share", malignant_share, 0 <= malignant_share <= 1, "from 0 to 1")


def picture(phantom: Phantom, seed: int, size: int) -> np.ndarray:
    """The phantom's pixels: RGB, uint8 `[size, size, 3]`."""
    original = phantom.number if phantom.copy_of is None else phantom.copy_of
    pixels = draw(phantom.patient.skin, phantom.lesion, size, np.random.default_rng([seed, 2, original]))
    if phantom.copy_of is None:
        return pixels
    # A second export of the same photograph: a little brighter or darker, a little blurred.
    gain = np.random.default_rng([seed, 2, phantom.number]).uniform(0.97, 1.03)
    return np.asarray(cv2.GaussianBlur(cv2.convertScaleAbs(pixels, alpha=gain), (0, 0), 0.5))


def _plan(patients: int, seed: int, malignant_share: float) -> Iterator[Phantom]:
    number = 0
    for p in range(patients):
        patient = _patient(p, np.random.default_rng([seed, 0, p]))
        first = _phantom(number, patient, malignant_share, np.random.default_rng([seed, 1, number]))
        yield first
        last = number + patient.images - 1
        for k in range(number + 1, last + 1):
            if k == last and p % DUPLICATE_EVERY == 0:
                yield replace(first, number=k, copy_of=first.number)
            else:
                yield _phantom(k, patient, malignant_share, np.random.default_rng([seed, 1, k]))
        number = last + 1


def _patient(number: int, rng: np.random.Generator) -> Patient:
    # Skewed as in ISIC 2020, whose median is 12; fewer here, so that a small set has many patients.
    fewest = 2 if number % DUPLICATE_EVERY == 0 else 1
    images = int(np.clip(np.round(rng.lognormal(np.log(6), 0.8)), fewest, MOST_IMAGES))
    skin = Skin(
        # Mostly light, as in the archive, with a tenth of it dark.
        melanin=float(np.clip(rng.lognormal(np.log(0.2), 1.0), 0.06, 1.4)),
        redness=float(rng.gamma(3, 0.05)),
        hairs=float(rng.choice([0, 1, 6, 25], p=[0.45, 0.25, 0.2, 0.1])),
        light=tuple(np.exp(rng.normal(0, [0.05, 0.025, 0.05]))),
    )
    known = rng.random() > 0.04
    age = float(np.clip(5 * np.round(rng.normal(49, 14) / 5), 15, 90))
    sex = "male" if rng.random() < 0.52 else "female"
    return Patient(number, sex if known else "", str(age) if known else "", images, skin)


def _phantom(number: int, patient: Patient, malignant_share: float, rng: np.random.Generator) -> Phantom:
    malignant = bool(rng.random() < malignant_share)
    # As in ISIC 2020: every melanoma is named, most of the rest is unknown.
    benign = str(rng.choice(["unknown", "nevus", "seborrheic keratosis"], p=[0.75, 0.18, 0.07]))
    counts = np.array(list(SITES.values()))
    return Phantom(
        number,
        patient,
        malignant,
        "melanoma" if malignant else benign,
        str(rng.choice(list(SITES), p=counts / counts.sum())),
        _lesion(rng.normal(SHIFT * malignant, 1, 4), keratosis=not malignant and benign == "seborrheic keratosis"),
    )


def _lesion(latent: np.ndarray, keratosis: bool) -> Lesion:
    """Asymmetry, border, colours and diameter, each rising with its latent number `[4]`."""
    asymmetry, border = 1 / (1 + np.exp(-1.2 * (latent[:2] - 0.7)))
    colours = np.clip(np.round(1.2 + 1.1 * latent[2]), 1, 6)
    diameter = np.clip(np.exp(1.5 + 0.35 * latent[3]), 1.5, 13)  # mm; the rule's limit is 6
    return Lesion(float(asymmetry), float(border), int(colours), float(diameter), keratosis)


def _name(number: int) -> str:
    return f"PHANTOM_{number:07d}"


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str | int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def _check(flag: str, value: float, fine: bool, expected: str) -> None:
    if not fine:
        raise InputError(f"--{flag} {value}: expected {expected}.")
