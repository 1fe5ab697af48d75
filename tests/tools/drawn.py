"""Drawn downloads for the tests of `prepare`, and how these call it."""

import cv2
import numpy as np

from dermsynth.tools.prepare import prepare
from tests.data.prepare.layouts.helpers import COLUMNS_2020


def download(folder, patients=8, each=3, side=32):
    """A small ISIC 2020: the first image of every second patient is a melanoma."""
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    rows = []
    for number in range(patients * each):
        patient, melanoma = number // each, number % each == 0 and number // each % 2 == 0
        name = f"ISIC_{number:07d}"
        picture = cv2.resize(rng.integers(0, 255, (3, 4, 3), np.uint8), (side * 3 // 2, side))
        cv2.imwrite(str(folder / "train" / f"{name}.jpg"), picture)
        word = "melanoma,malignant,1" if melanoma else "nevus,benign,0"
        rows.append(f"{name},IP_{patient},female,40,torso,{word}")
    (folder / "train.csv").write_text("\n".join([COLUMNS_2020, *rows]) + "\n")
    return folder


def go(source, out, **arguments):
    prepare([source], out, **{"size": 16, "processes": 1, "fractions": (0.5, 0.25, 0.25), **arguments})


def contents(out):
    """Every file of a set with its bytes; dataset.json says nothing that depends on the run."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
