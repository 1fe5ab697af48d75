"""Draw a practice data set, so that every other command can be tried without a download."""

import shlex
from pathlib import Path

from dermsynth import made_from
from dermsynth.data.phantoms import patients as phantom_patients


def phantoms(out: Path, patients: int = 60, seed: int = 0, size: int = 256, malignant_share: float = 0.3) -> None:
    """Draw lesions in the ISIC 2020 layout: a practice data set that needs no download.

    The images look like dermoscopy, and benign and malignant ones differ as the ABCD rule says, but they are
    drawn: no result on them says anything about medicine. Give the folder to `prepare` as you would give it
    ISIC 2020. After a kill the same command draws them again.

    Args:
        out: folder to write, new or empty, or one that the same command began.
        patients: number of patients, each with 1 to 20 images, 8 on average.
        seed: the same seed gives the same files, byte for byte.
        size: height and width of the images in pixels.
        malignant_share: part of the lesions that is malignant; 0.0176 in the real ISIC 2020.

    Raises:
        InputError: a number is out of its range, or the folder holds something.
    """
    told = made_from.settings(locals())
    images = phantom_patients.write(out, patients, seed, size, malignant_share, {"settings": told})
    malignant = sum(image.malignant for image in images)
    print(f"{out}: {len(images)} phantom images of {patients} patients, {malignant} malignant.")
    folder, image_set = shlex.quote(str(out)), shlex.quote(f"sets/{out.resolve().name}")
    print(f"next: python -m dermsynth prepare {folder} --out {image_set} --size {size}")
