"""How fast `prepare` is against the loop that everyone writes: open, convert, resize, save with Pillow.

    python -m benchmarks.prepare

Both bring the same drawn 6000 × 4000 JPEGs to a short side of 512 pixels and write PNG, in as many processes.
"""

import contextlib
import io
import os
import shutil
import tempfile
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.drawn import photograph
from benchmarks.measure import in_turn, numbers_given, report
from dermsynth.tools.prepare import prepare

HEADER = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
SIZE = 512


def main() -> None:
    arguments = numbers_given(__doc__, images=24, rounds=3, processes=1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        megabytes = draw(source, arguments.images)
        print(f"{arguments.images} JPEGs of 6000 × 4000 pixels and {megabytes:.1f} MB, {arguments.processes} processes")
        medians = in_turn(
            {
                "plain Pillow": lambda: plain(source, fresh(out), arguments.processes),
                "prepare": lambda: ours(source, fresh(out), arguments.processes),
            },
            arguments.rounds,
        )
        report(
            medians, "plain Pillow", "prepare", arguments.images, processes=arguments.processes, rounds=arguments.rounds
        )


def draw(folder: Path, count: int) -> float:
    """An ISIC 2020 download; returns the mean size of a file in MB."""
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    rows, files = [HEADER], []
    for number in range(count):
        name = f"ISIC_{number:07d}"
        files.append(folder / "train" / f"{name}.jpg")
        if number < 3:
            Image.fromarray(photograph(rng, 6000, 4000, grain=6)).save(files[-1], quality=90)
        else:
            os.link(files[number % 3], files[-1])
        rows.append(f"{name},IP_{number},female,40,torso,{'melanoma,malignant,1' if number % 2 else 'nevus,benign,0'}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return float(np.mean([file.stat().st_size for file in files])) / 1e6


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def ours(source: Path, out: Path, processes: int) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepare([source], out, size=SIZE, processes=processes)


def plain(source: Path, out: Path, processes: int) -> None:
    out.mkdir()
    jobs = [(path, out / f"{path.stem}.png") for path in sorted((source / "train").iterdir())]
    if processes == 1:
        for job in jobs:
            convert(job)
    else:
        with Pool(processes) as pool:
            pool.map(convert, jobs, chunksize=1)


def convert(job: tuple[Path, Path]) -> None:
    source, target = job
    image = Image.open(source).convert("RGB")
    scale = SIZE / min(image.size)
    shape = round(image.width * scale), round(image.height * scale)
    image.resize(shape, Image.Resampling.BILINEAR).save(target)


if __name__ == "__main__":
    main()
