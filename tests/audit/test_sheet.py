"""What the picture of pairs shows beside what."""

import dataclasses

import cv2
import numpy as np
import pytest

from dermsynth.audit.copies import find_copies
from dermsynth.audit.nearest import turned
from dermsynth.audit.sheet import write_pairs
from tests.audit.sides import a_side, seen
from tests.planted import drawn

SIDE = 128


@pytest.fixture
def shown(tmp_path):
    """The first row of pairs, `[4, 2, 128, 128, 3]`: a copy in pixels, turned; one in features alone; two strangers."""
    rng = np.random.default_rng(0)
    train_pictures, strangers, others = ([drawn(rng, SIDE, SIDE) for _ in range(n)] for n in (20, 330, 4))
    views = np.arange(8.0)[:, None, None] + 10 * np.arange(20.0)[None, :, None]
    pictures = [turned(train_pictures[3][None], 5)[0], *others[1:]]
    features = np.array([[1000.0], [76.0], [1000.0], [1000.0]])
    train = _on_disk(seen(a_side(["NV"] * 20), pictures=train_pictures, views=views), train_pictures, tmp_path)
    held_out = seen(a_side(["NV"] * 330, split="test"), np.full((330, 1), 500.0), strangers)
    generated = _on_disk(seen(a_side(["NV"] * 4, split="unused"), features, pictures), pictures, tmp_path)
    verdicts = find_copies(generated, held_out, train)
    assert verdicts.beyond[:2].tolist() == [[True, True, False], [False, False, True]]
    write_pairs(verdicts, train, tmp_path)
    sheet = cv2.imread(str(tmp_path / "copies.png"))[..., ::-1]
    assert sheet.shape[1] == 4 * 2 * SIDE + 3 * 10
    row = sheet[30 : 30 + SIDE]
    cells = [row[:, start : start + 2 * SIDE] for start in range(0, sheet.shape[1], 2 * SIDE + 10)]
    return np.stack([np.stack([cell[:, :SIDE], cell[:, SIDE:]]) for cell in cells]), train_pictures, pictures


def _on_disk(of, pictures, folder):
    (images,) = of.side.sets
    for record, picture in zip(of.side.records, pictures, strict=True):
        cv2.imwrite(str(folder / record.file_name), picture[..., ::-1])
    side = dataclasses.replace(of.side, sets=(dataclasses.replace(images, root=folder),))
    return dataclasses.replace(of, side=side)


def test_a_copy_in_pixels_lies_as_its_original(shown):
    cells, train_pictures, _ = shown
    assert (cells[0, 1] == train_pictures[3]).all()
    assert (cells[0, 0] == train_pictures[3]).all()


def test_a_copy_in_features_alone_is_beside_its_nearest_in_features_turned_as_it_is(shown):
    cells, train_pictures, pictures = shown
    assert (cells[1, 0] == pictures[1]).all()
    assert (cells[1, 1] == turned(train_pictures[7][None], 6)[0]).all()
