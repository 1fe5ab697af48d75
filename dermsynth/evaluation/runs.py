"""Read the predictions of runs, and hold them only if they are about the same images.

Arm, seed and generator of a run stand in its configuration. Where that names no arm, a folder `ARM-seedN` is seed N of
arm ARM, and one without `-seedN` an arm of one seed.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermsynth import made_from
from dermsynth.data.sets.manifest import DATASET, IMAGE_GROUP
from dermsynth.errors import InputError
from dermsynth.evaluation.metrics import Floats, Integers
from dermsynth.files import read_json, reading
from dermsynth.run.config import RUN_FILE, leaves
from dermsynth.run.yaml_files import read_yaml

PREDICTIONS = "predictions.csv"
COLUMNS = ("image_id", "group", "split", "label")
PREFIX = "p_"
AGAIN = "Write it again with `python -m dermsynth test`."
MIX = "data.init_args.mix.class_path"
SYNTHETIC = "data.init_args.synthetic"
# Mixes that show no generated image; the second is the control of those that do.
REAL_ONLY, REPEATED = "RealOnly", "OversampledReal"
# Beside predictions of an external test set, which lie in a folder of their own; it names the checkpoint.
_TEST_FILE = "test.yaml"
_COMPARED = ("test", "val")
SUM_TOLERANCE = 1e-3  # softmax in half precision, written with few digits, is still within it


@dataclass(frozen=True)
class Run:
    """The predictions of one trained model, sorted by image id.

    Args:
        path: the run's folder.
        arm: what is compared.
        seed: None where neither configuration nor the folder's name gives one.
        generator: the seed with which the generator of its images was trained; None where it was shown none, they are
            of several, or nothing says it.
        configuration: by dotted key; empty where the folder holds none.
        classes: in the order of the label index.
        image_ids: `N` of them, unique.
        groups: of each image.
        splits: of each image.
        labels: class name of each image.
        probabilities: `[N, C]`.
    """

    path: Path
    arm: str
    seed: int | None
    generator: int | None
    configuration: Mapping[str, Any]
    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: Floats

    @property
    def key(self) -> tuple[int | None, int | None]:
        """Which of its arm's runs this is."""
        return self.seed, self.generator

    @property
    def mix(self) -> str:
        """The name of its mixing policy; blank where nothing says it."""
        return str(self.configuration.get(MIX) or "").rpartition(".")[2]

    @property
    def shows_generated(self) -> bool:
        """Whether its configuration mixes generated images in."""
        return bool(self.configuration.get(SYNTHETIC)) and self.mix not in ("", REAL_ONLY, REPEATED)

    @property
    def label_index(self) -> Integers:
        """Label of each image as an index into `classes`, `[N]`."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[name] for name in self.labels], dtype=np.int64)

    @property
    def group_index(self) -> Integers:
        """Group of each image as an index from 0, `[N]`."""
        return np.unique(np.array(self.groups), return_inverse=True)[1].astype(np.int64)

    @property
    def n_without_id(self) -> int:
        """Images of no known patient or lesion: their group is named by an image.

        `prepare` marks such names, as the image may be a near-duplicate that these predictions are not about. In a
        table that others made, an image that names its own group, or another one's here, tells it, too.
        """
        names = set(self.image_ids)
        return sum(group.startswith(IMAGE_GROUP) or group in names for group in self.groups)


def read_run(folder: Path) -> Run:
    """Read one run folder's `predictions.csv`.

    Raises:
        InputError: the folder or file is missing, or a row is not a prediction; the message names the line.
    """
    if folder.is_file():
        raise InputError(f"{folder}: this is a file; give the folder of a run, which holds {PREDICTIONS}.")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder.")
    table = folder / PREDICTIONS
    with reading(folder):
        tested = table.is_file()
    if not tested:
        raise InputError(
            f"{folder}: no {PREDICTIONS} in it. Write it with `python -m dermsynth test "
            f"--config {folder / RUN_FILE} --ckpt_path {folder / 'checkpoints' / 'best.ckpt'}`."
        )
    reader = csv.DictReader(io.StringIO(_text(table), newline=""), strict=True)
    try:
        header = reader.fieldnames or []
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise InputError(f"{table}: column {', '.join(missing)} is missing; found {', '.join(header)}.")
        classes = tuple(name.removeprefix(PREFIX) for name in header if name.startswith(PREFIX))
        if len(classes) < 2:
            raise InputError(
                f"{table}: a column {PREFIX}CLASS is needed for each of two or more classes; found {', '.join(header)}."
            )
        rows = [_parse(row, classes, f"{table}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.reader.line_num}: not CSV ({error}). {AGAIN}") from error
    if not rows:
        raise InputError(f"{table}: no rows. {AGAIN}")
    rows.sort(key=lambda row: row[0])
    image_ids, groups, splits, labels, probabilities = zip(*rows, strict=True)
    repeated = [name for name, count in Counter(image_ids).items() if count > 1]
    if repeated:
        raise InputError(f"{table}: image {repeated[0]} occurs twice; each image must have one prediction.")
    configuration = _configuration(folder)
    arm, seed = _arm_and_seed(folder, configuration)
    return Run(
        folder,
        arm,
        seed,
        _generator(configuration),
        configuration,
        classes,
        image_ids,
        groups,
        splits,
        labels,
        np.array(probabilities),
    )


def arm_of(folder: Path) -> str:
    """The arm of a run's folder, as a comparison takes it.

    Raises:
        InputError: its configuration cannot be read.
    """
    return _arm_and_seed(folder, _configuration(folder))[0]


def _arm_and_seed(folder: Path, configuration: Mapping[str, Any]) -> tuple[str, int | None]:
    if configuration.get("arm") is not None:
        return str(configuration["arm"]), configuration.get("seed_everything")
    return arm_and_seed(folder)


def _configuration(folder: Path) -> dict[str, Any]:
    """By dotted key; empty where nothing is known."""
    file = _configuration_file(folder)
    return leaves(read_yaml(file)) if file else {}


def _configuration_file(folder: Path) -> Path | None:
    """What the run was trained with; of an older run, or somebody else's, nothing is known.

    A test on an external set is of no generated images, so its own configuration does not say what the run was shown.
    """
    if (file := folder / RUN_FILE).is_file():
        return file
    if not (file := folder / _TEST_FILE).is_file():
        return None
    checkpoint = read_yaml(file).get("ckpt_path")
    trained = Path(checkpoint).parent.parent / RUN_FILE if isinstance(checkpoint, str) else file
    return trained if trained.is_file() else file


def _generator(configuration: Mapping[str, Any]) -> int | None:
    """The seed of the one generator whose images the run was shown, as their sets say it."""
    sets = configuration.get(SYNTHETIC) or []
    if str(configuration.get(MIX) or "").rpartition(".")[2] in ("", REAL_ONLY, REPEATED):
        return None
    found = {_generator_seed(Path(folder) / DATASET) for folder in sets if isinstance(folder, str)}
    return found.pop() if len(found) == 1 else None


def _generator_seed(file: Path) -> int | None:
    seed = read_json(file, "Fix it, or generate the set again.").get("generator_seed") if file.is_file() else None
    return seed if isinstance(seed, int) else None


def arm_and_seed(folder: Path) -> tuple[str, int | None]:
    """`runs/hybrid-seed3` is arm `hybrid`, seed 3; `runs/hybrid` is arm `hybrid` without a seed."""
    name = folder.name if folder.name.strip(".") else folder.resolve().name
    match = re.fullmatch(r"(.+)-seed(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def read_arms(folders: Sequence[Path]) -> dict[str, tuple[Run, ...]]:
    """Read runs, check that they are about the same images, and group them to arms in the order given.

    Raises:
        InputError: a run cannot be read, one is given twice, or two do not hold the same images, labels,
            groups, splits or classes; the message names both runs and the first difference.
    """
    arms: dict[str, dict[tuple[int | None, int | None], Run]] = {}
    first: Run | None = None
    for folder in folders:
        run = read_run(folder)
        first = first or run
        check_same_images(first, run)
        seeds = arms.setdefault(run.arm, {})
        if run.key in seeds:
            named = "no seed" if run.seed is None else f"seed {run.seed}"
            raise InputError(
                f"{seeds[run.key].path} and {run.path} are both arm {run.arm}, {named}; "
                "give each run once, or rename a folder to ARM-seedN."
            )
        seeds[run.key] = run
    return {arm: tuple(runs.values()) for arm, runs in arms.items()}


def inputs_of(folders: Sequence[Path]) -> dict[str, str]:
    """What a comparison reads of runs, by its content."""
    found = {}
    for folder in folders:
        for file in (folder / PREDICTIONS, _configuration_file(folder)):
            if file and file.is_file():
                found[f"{folder.name}/{file.name}"] = made_from.content(file)
    return found


def check_same_images(first: Run, other: Run) -> None:
    """Raise unless two runs hold the same classes, images, labels, groups and splits.

    Raises:
        InputError: names both runs and the first difference. Groups may be patients: their names stay out.
    """
    runs = f"{first.path} and {other.path} cannot be compared"
    advice = "Test every arm on one image set with one list of classes."
    if first.classes != other.classes:
        raise InputError(f"{runs}: classes {list(first.classes)} and {list(other.classes)}. {advice}")
    for here, there in ((first, other), (other, first)):
        only = sorted(set(here.image_ids) - set(there.image_ids))
        if only:
            raise InputError(
                f"{runs}: image {only[0]} is in {here.path} and not in {there.path} ({len(only)} such). {advice}"
            )
    for what in ("labels", "splits", "groups"):
        for image_id, a, b in zip(first.image_ids, getattr(first, what), getattr(other, what), strict=True):
            if a != b:
                values = "two groups" if what == "groups" else f"{a} in the first, {b} in the second"
                raise InputError(f"{runs}: image {image_id} differs in {what}: {values}. {advice}")


def _text(table: Path) -> str:
    try:
        with reading(table):
            text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{table}, line {line}: not UTF-8 text. {AGAIN}") from error
    if not text.strip():
        raise InputError(f"{table}: the file is empty. {AGAIN}")
    return text


def _parse(row: dict[str, str], classes: tuple[str, ...], where: str) -> tuple[str, str, str, str, tuple[float, ...]]:
    if None in row:
        raise InputError(f"{where}: more cells than the header has columns.")
    blank = [name for name in COLUMNS if not row[name]]
    if blank:
        raise InputError(f"{where}: {', '.join(blank)} is blank.")
    if row["split"] not in _COMPARED:
        raise InputError(
            f"{where}: split {row['split']!r}; expected {' or '.join(_COMPARED)}, as models are not compared on images "
            "that they were fitted on."
        )
    if row["label"] not in classes:
        raise InputError(f"{where}: label {row['label']!r} is not among the classes {', '.join(classes)}.")
    try:
        probabilities = tuple(float(row[PREFIX + name]) for name in classes)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: a probability is not a number ({error}).") from error
    if not all(0 <= p <= 1 for p in probabilities):
        raise InputError(f"{where}: a probability lies outside 0 to 1: {', '.join(map(str, probabilities))}.")
    if not math.isclose(total := math.fsum(probabilities), 1, abs_tol=SUM_TOLERANCE):
        raise InputError(f"{where}: the probabilities sum to {total:.4g}; expected 1 (a softmax over the classes).")
    return row["image_id"], row["group"], row["split"], row["label"], probabilities
