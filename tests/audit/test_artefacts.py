"""On drawn lesions, where it is known what was drawn over them, and on skin with one artefact by hand."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dermsynth.audit.artefacts import FINDERS, SIZE, artefacts
from dermsynth.audit.sides import read_sides
from dermsynth.data.phantoms import drawing
from dermsynth.data.phantoms.drawing import Lesion, Skin, draw
from dermsynth.data.sets import manifest
from dermsynth.data.sets.manifest import Record, sha256_file

DRAWN = 40


def drawn(monkeypatch, hairs, ruler, stop=False, size=SIZE):
    """Pictures of lesions that all have a ruler, or the dermoscope's round stop, or that all have none."""
    canvas = drawing._Canvas
    put_ruler, expose = canvas.ruler, canvas.expose

    class Loaded:
        """Random numbers of which the one that decides on the stop is known."""

        def __init__(self, rng):
            self.rng, self.stop = rng, None

        def random(self):
            value, self.stop = self.stop, None
            return self.rng.random() if value is None else value

        def __getattr__(self, name):
            return getattr(self.rng, name)

    def known_truth(self, picture):
        if ruler:
            put_ruler(self, picture)
        self.rng.stop = 0.0 if stop else 1.0
        expose(self, picture)

    monkeypatch.setattr(canvas, "ruler", lambda self, picture: None)
    monkeypatch.setattr(canvas, "expose", known_truth)
    pictures = []
    for seed in range(DRAWN):
        rng = np.random.default_rng(seed)
        skin = Skin(melanin=rng.uniform(0.05, 0.6), redness=rng.uniform(0.15, 0.4), hairs=hairs, light=(1, 1, 1))
        lesion = Lesion(*rng.uniform(0, 0.6, 2), colours=2, diameter=rng.uniform(3, 7))
        pictures.append(draw(skin, lesion, size, Loaded(rng)))
    return pictures


def share_of(name, pictures):
    return np.mean([FINDERS[name].find(picture) for picture in pictures])


def test_what_is_drawn_over_lesions_is_found_and_nothing_else(monkeypatch):
    bare = drawn(monkeypatch, hairs=0, ruler=False)
    assert {name: share_of(name, bare) for name in FINDERS} == pytest.approx(dict.fromkeys(FINDERS, 0), abs=0.05)


@pytest.mark.parametrize("size", [64, 256])
def test_hair_on_drawn_lesions(monkeypatch, size):
    hairy = drawn(monkeypatch, hairs=15, ruler=False, size=size)
    assert share_of("hair", hairy) >= 0.9
    assert share_of("ruler", hairy) <= 0.05


def test_a_ruler_on_drawn_lesions_is_no_hair(monkeypatch):
    """Of the rulers six in ten have a line."""
    measured = drawn(monkeypatch, hairs=0, ruler=True)
    assert share_of("ruler", measured) >= 0.6
    assert share_of("hair", measured) <= 0.05


@pytest.mark.parametrize("size", [32, 64, 256])
def test_a_round_stop_on_drawn_lesions(monkeypatch, size):
    assert share_of("dark corners", drawn(monkeypatch, hairs=0, ruler=False, stop=True, size=size)) >= 0.9


def skin(side=256):
    """Pink skin with a brown lesion."""
    image = np.clip(np.array([215, 165, 150]) + np.random.default_rng(0).normal(0, 2, (side, side, 1)), 0, 255)
    image = cv2.circle(image.astype(np.uint8), (side // 2, side // 2), side // 6, (95, 60, 50), -1)
    return cv2.GaussianBlur(image, (5, 5), 0)


def with_line(image):
    for start, end in (((10, 30), (240, 90)), ((200, 20), (40, 230)), ((20, 180), (230, 200))):
        cv2.line(image, start, end, (45, 30, 25), 2, cv2.LINE_AA)


def with_ruler(image):
    cv2.line(image, (60, 225), (200, 228), (30, 30, 30), 1, cv2.LINE_AA)
    for tick in range(15):
        foot = (60 + 10 * tick, 225 + round(3 * tick / 14))
        cv2.line(image, foot, (foot[0], foot[1] - 8), (30, 30, 30), 1, cv2.LINE_AA)


def with_ink(image):
    cv2.putText(image, "x", (15, 60), cv2.FONT_HERSHEY_SIMPLEX, 2, (90, 60, 170), 4)


def with_bubbles(image):
    for x, y in ((40, 40), (60, 200), (200, 50), (220, 210), (30, 120)):
        cv2.circle(image, (x, y), 3, (255, 255, 250), -1)


def with_frame(image):
    image[:12] = image[-12:] = 5


def with_round_field(image):
    away = np.hypot(*(np.indices(image.shape[:2]) - len(image) / 2))
    image[away > 0.56 * len(image)] = 8


BY_HAND = {
    "hair": with_line,
    "ruler": with_ruler,
    "ink or sticker": with_ink,
    "gel bubbles, drops": with_bubbles,
    "frame": with_frame,
    "dark corners": with_round_field,
}


@pytest.mark.parametrize("artefact", FINDERS)
def test_each_finder_finds_its_own_and_no_other(artefact):
    image = skin()
    assert not any(finder.find(image) for finder in FINDERS.values())
    BY_HAND[artefact](image)
    assert [name for name, finder in FINDERS.items() if finder.find(image)] == [artefact]


def test_a_frame_hides_no_dark_corners():
    image = skin()
    with_round_field(image)
    framed = cv2.copyMakeBorder(image, 14, 14, 14, 14, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    assert FINDERS["frame"].find(framed)
    assert FINDERS["dark corners"].find(framed)


def test_bluish_light_is_no_ink():
    tinted = np.clip(skin().astype(float) * (0.9, 0.95, 1.35), 0, 255).astype(np.uint8)
    assert not FINDERS["ink or sticker"].find(tinted)


def made_set(root, origin, side, hairy):
    """Four nevi and four melanomas, of which the first ones are hairy."""
    (root / "images").mkdir(parents=True)
    records = []
    for number in range(8):
        image = skin()
        if number in hairy:
            with_line(image)
        name = f"images/{origin}{number}.png"
        cv2.imwrite(str(root / name), cv2.cvtColor(cv2.resize(image, (side, side)), cv2.COLOR_RGB2BGR))
        diagnosis = ("NV", "MEL")[number // 4]
        records.append(
            Record(name, f"{origin}{number}", sha256_file(root / name), side, side, diagnosis, int(number > 3),
                   group=f"{origin}{number}", split="train", origin=origin, source=origin,
                   extra={"train_split_sha256": "0" * 64} if origin == "synthetic" else {})
        )  # fmt: skip
    manifest.write(root, records, {})
    return root


@pytest.mark.parametrize(("side", "left_out"), [(256, ()), (100, ("ruler", "gel bubbles, drops"))])
def test_both_sides_are_looked_at_alike_and_at_the_size_of_the_smaller(tmp_path, side, left_out):
    made = made_set(tmp_path / "made", "synthetic", side, hairy=(0, 1, 4))
    found = artefacts(*read_sides([made], made_set(tmp_path / "real", "real", 300, hairy=(5,))), seed=0)
    assert (found.size, found.left_out) == (min(side, SIZE), left_out)
    hair = {row.class_name: row for row in found.rows if row.artefact == "hair"}
    assert {name: (row.n, row.synthetic.value) for name, row in hair.items()} == {
        "": (8, 3 / 8), "MEL": (4, 1 / 4), "NV": (4, 2 / 4)
    }  # fmt: skip
    assert {name: (row.n_real, row.real.value) for name, row in hair.items()} == {
        "": (8, 1 / 8), "MEL": (4, 1 / 4), "NV": (4, 0)
    }  # fmt: skip
    assert all(row.synthetic.value == 0 for row in found.rows if row.artefact != "hair")
    assert {row.artefact for row in found.rows} == set(FINDERS) - set(left_out)


def test_real_classes_weigh_as_the_generated_ones_do(tmp_path):
    """Melanomas are hairy on both sides; of the generated images they are one in three, of the real ones one in two."""
    made = made_set(tmp_path / "made", "synthetic", 64, hairy=(4, 5, 6, 7))
    generated, real = read_sides([made], made_set(tmp_path / "real", "real", 64, hairy=(4, 5, 6, 7)))
    found = artefacts(replace(generated, images=generated.images[:6]), real, seed=0)
    hair = next(row for row in found.rows if row.artefact == "hair" and not row.class_name)
    assert hair.synthetic.value == hair.real.value == pytest.approx(1 / 3)
    assert hair.real.low < 1 / 3 < hair.real.high
