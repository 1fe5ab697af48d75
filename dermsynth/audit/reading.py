"""A blinded reading: are readers able to tell real from generated images? The sheet with its key, and the scores.

The sheet shows photographs of patients: it and the key stay with the user and the readers.
"""

import csv
import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import cohen_kappa_score

from dermsynth.audit.answers import Kappa, Reader, Readings
from dermsynth.audit.estimates import share, wilson
from dermsynth.audit.reading_page import page
from dermsynth.audit.sides import Side, square
from dermsynth.data.sets.images import read_rgb
from dermsynth.errors import InputError
from dermsynth.files import reading, write_atomically
from dermsynth.seeds import Purpose, entropy

SHEET, KEY = "reading.html", "reading_key.csv"
COLUMNS = ("sheet", "reader", "item", "verdict", "quality")
KEY_COLUMNS = ("sheet", "item", "origin", "class", "image_id")
VERDICTS = ("real", "generated")
GRADES = 5
_LARGEST = 384  # pixels of the squares that are shown


@dataclass(frozen=True)
class _Answer:
    """What one reader said of one picture; None where nothing was ticked."""

    item: int
    verdict: str | None
    quality: int | None


def write_sheet(generated: Side, held_out: Side, count: int, out: Path, seed: int) -> int:
    """Write reading.html and reading_key.csv, half of the pictures real and half generated, as many of each class.

    Real pictures are held out, each of another patient. All are shown as squares of one size and in one file format.

    Args:
        generated: the generated images.
        held_out: real images of val and test.
        count: pictures on the sheet.
        out: folder, which exists.
        seed: of what is shown and of the order.

    Returns:
        How many pictures are on it, fewer than asked for where a class has too few.

    Raises:
        InputError: fewer than two are asked for, or there is none of a class on both sides.
    """
    if count < 2:
        raise InputError(f"--reading-sheet {count}: give the number of pictures, half of which are real; 2 or more.")
    draw = np.random.default_rng(entropy(seed, Purpose.AUDIT, count, GRADES))
    picked = _picked(generated, held_out, count // 2, draw)
    if not picked:
        raise InputError("--reading-sheet: no class has both generated images and held-out real ones to be shown.")
    size = min(_LARGEST, *(min(side.records[place].width, side.records[place].height) for side, place in picked))
    order = draw.permutation(len(picked))
    rows, images = [], []
    for item, number in enumerate(order.tolist(), 1):
        side, place = picked[number]
        record = side.records[place]
        pixels = square(read_rgb(side.paths[place]), size)
        images.append(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
        rows.append((item, VERDICTS[record.origin == "synthetic"], str(side.classes[place]), record.image_id))
    # Of the pictures in their order: an answer cannot be scored with the key of another sheet.
    sheet = hashlib.sha256(b"".join(images)).hexdigest()[:8]
    key = io.StringIO()
    writer = csv.writer(key, lineterminator="\n")
    writer.writerows([KEY_COLUMNS, *((sheet, *row) for row in rows)])
    write_atomically(out / KEY, key.getvalue())
    write_atomically(out / SHEET, page(sheet, images, VERDICTS, GRADES, COLUMNS))
    return len(rows)


def score(files: Sequence[Path], key: Path) -> Readings:
    """What readers got right, and how far they agree.

    Args:
        files: the CSV that each reader saved.
        key: reading_key.csv of that sheet.

    Raises:
        InputError: a file is none of this sheet, or a reader's name occurs twice.
    """
    solution = {int(row["item"]): row for row in _rows(key, KEY_COLUMNS, "Write the sheet again.")}
    sheet = next(iter(solution.values()))["sheet"]
    by_reader: dict[str, list[_Answer]] = {}
    for file in files:
        name, answers = _answers(file, sheet, set(solution))
        if name in by_reader:
            raise InputError(f"{file}: another file is by the reader {name!r}, too. Give each reader's answers once.")
        by_reader[name] = answers
    origins = {item: row["origin"] for item, row in solution.items()}
    told = [(a.item, a.verdict == origins[a.item]) for answers in by_reader.values() for a in answers if a.verdict]
    hits = np.array([hit for _, hit in told], dtype=np.bool_)
    items = np.array([item for item, _ in told], dtype=np.int64)
    return Readings(
        sheet=sheet,
        n=len(solution),
        accuracy=share(hits, items) if len(hits) else wilson(0, 0),
        readers=tuple(_reader(name, answers, origins) for name, answers in by_reader.items()),
        agreement=tuple(_kappa(one, two, by_reader) for one, two in itertools.combinations(by_reader, 2)),
    )


def _picked(generated: Side, held_out: Side, half: int, draw: np.random.Generator) -> list[tuple[Side, int]]:
    """Images of both sides, `half` of each, the classes in turn and as many of each on both sides."""
    _, firsts = np.unique(held_out.groups[(order := draw.permutation(len(held_out)))], return_index=True)
    alone = order[np.sort(firsts)]  # one image of each patient
    ours = draw.permutation(len(generated))
    names = sorted({str(name) for name in generated.classes} - {""})
    of_class = [
        list(zip(ours[generated.classes[ours] == name], alone[held_out.classes[alone] == name], strict=False))
        for name in names
    ]
    turns = [pair for turn in itertools.zip_longest(*of_class) for pair in turn if pair is not None][:half]
    return [(generated, int(g)) for g, _ in turns] + [(held_out, int(r)) for _, r in turns]


def _answers(file: Path, sheet: str, items: set[int]) -> tuple[str, list[_Answer]]:
    """The reader of a file, and the answers in it."""
    answers, names = dict[int, _Answer](), set[str]()
    advice = "Give a file as the reading sheet saved it."
    for line, row in enumerate(_rows(file, COLUMNS, advice), 2):
        where = f"{file}, line {line}"
        if row["sheet"] != sheet:
            raise InputError(f"{where}: it answers sheet {row['sheet']!r}, and the key is of {sheet}. {advice}")
        item, verdict, quality = row["item"], row["verdict"], row["quality"]
        if not item.isdecimal() or int(item) not in items or int(item) in answers:
            raise InputError(f"{where}: item {item!r} is not on the sheet, or occurs twice. {advice}")
        if verdict not in ("", *VERDICTS):
            raise InputError(f"{where}: verdict {verdict!r}; expected {' or '.join(VERDICTS)}, or a blank. {advice}")
        if quality not in ("", *map(str, range(1, GRADES + 1))):
            raise InputError(f"{where}: quality {quality!r}; expected 1 to {GRADES}, or a blank. {advice}")
        answers[int(item)] = _Answer(int(item), verdict or None, int(quality) if quality else None)
        names.add(row["reader"])
    if len(names) != 1:
        raise InputError(f"{file}: it names {len(names)} readers; expected one. {advice}")
    return names.pop(), [answers[item] for item in sorted(answers)]


def _rows(file: Path, columns: Sequence[str], advice: str) -> list[dict[str, str]]:
    try:
        with reading(file), file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file in UTF-8 ({error}). {advice}") from error
    if not rows or any(row.get(name) is None for row in rows for name in columns):
        raise InputError(f"{file}: expected rows with the columns {', '.join(columns)}. {advice}")
    return [{name: row[name].strip() for name in columns} for row in rows]


def _reader(name: str, answers: Sequence[_Answer], origins: dict[int, str]) -> Reader:
    def right(of: Sequence[str]) -> tuple[int, int]:
        hits = [a.verdict == origins[a.item] for a in answers if a.verdict and origins[a.item] in of]
        return sum(hits), len(hits)

    def quality(of: str) -> float | None:
        given = [a.quality for a in answers if a.quality is not None and origins[a.item] == of]
        return float(np.mean(given)) if given else None

    real, made = VERDICTS
    return Reader(
        name=name,
        n=right(VERDICTS)[1],
        accuracy=wilson(*right(VERDICTS)),
        of_real=wilson(*right([real])),
        of_synthetic=wilson(*right([made])),
        quality_real=quality(real),
        quality_synthetic=quality(made),
    )


def _kappa(first: str, second: str, by_reader: dict[str, list[_Answer]]) -> Kappa:
    said = [{a.item: a.verdict for a in by_reader[name] if a.verdict} for name in (first, second)]
    both = sorted(set(said[0]) & set(said[1]))
    pairs = [[of[item] for item in both] for of in said]
    # Where both say the same one word of all there is nothing that chance could not explain.
    defined = len({*pairs[0], *pairs[1]}) > 1
    kappa = float(cohen_kappa_score(*pairs)) if defined else None
    return Kappa(first, second, len(both), kappa)
