import csv
import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermsynth.data.phantoms import patients as phantoms
from dermsynth.data.phantoms.drawing import Lesion, Skin, draw
from dermsynth.errors import InputError

KAGGLE = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def segment(image: np.ndarray) -> np.ndarray:
    """The lesion by Otsu's threshold, hair closed away first; knows nothing of how the image was drawn."""
    green = cv2.morphologyEx(image[..., 1], cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    away = np.hypot(*(np.indices(green.shape) / (len(green) - 1) - 0.5))
    threshold, _ = cv2.threshold(green[away < 0.42], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = ((green < threshold) & (away < 0.5)).astype(np.uint8)
    _, labels, stats, centres = cv2.connectedComponentsWithStats(dark)
    off_centre = np.linalg.norm(centres / len(green) - 0.5, axis=1)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA] * np.exp(-4 * off_centre[1:])))


def folded(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Asymmetry of shape and of darkness: the part that does not match when folded along the main axes."""
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    angle = 0.5 * math.atan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    centre = (moments["m10"] / moments["m00"], moments["m01"] / moments["m00"])
    turn = cv2.getRotationMatrix2D(centre, math.degrees(angle), 1)
    turn[:, 2] += np.array(mask.shape) / 2 - 0.5 - centre
    depth = np.where(mask, 255.0 - image[..., 1], 0).astype(np.float32)
    shape, depth = (cv2.warpAffine(m, turn, mask.shape) for m in (mask.astype(np.float32), depth))
    flips = [np.s_[::-1], np.s_[:, ::-1]]
    return tuple(float(np.mean([np.abs(m - m[f]).sum() / m.sum() for f in flips])) for m in (shape, depth))


def abcd_of_pixels(image: np.ndarray) -> list[float]:
    """Hand-made asymmetry, border, colour and size, as the dermoscopy literature measures them."""
    mask = segment(image)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    perimeter = max(cv2.arcLength(c, True) for c in contours)
    hull = max(cv2.contourArea(cv2.convexHull(c)) for c in contours)
    area = float(mask.sum())
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[mask].astype(float)
    shape, depth = folded(image, mask)
    return [
        shape,
        depth,
        perimeter / area**0.5,
        area / hull,
        *lab.std(axis=0),
        lab[:, 2].min(),
        math.log(area),
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    return folder, phantoms.write(folder, patients=60, seed=0, size=96, malignant_share=0.4)


@pytest.fixture(scope="module")
def features(drawn):
    folder, images = drawn
    kept = [p for p in images if p.copy_of is None]
    read = [cv2.imread(str(folder / "train" / f"{p.name}.jpg"))[..., ::-1].copy() for p in kept]
    return (
        np.array([abcd_of_pixels(image) for image in read]),
        np.array([p.malignant for p in kept]),
        np.array([p.patient.number for p in kept]),
    )


def test_layout_is_that_of_kaggle(drawn):
    folder, images = drawn
    with (folder / "train.csv").open() as file:
        assert file.readline() == f"{KAGGLE}\n"
    rows = rows_of(folder / "train.csv")
    assert {f"{row['image_name']}.jpg" for row in rows} == {p.name for p in (folder / "train").iterdir()}
    assert len(rows) == len(images) == len({row["image_name"] for row in rows})
    assert all((row["benign_malignant"] == "malignant") == (row["target"] == "1") for row in rows)
    assert all((row["diagnosis"] == "melanoma") == (row["target"] == "1") for row in rows)
    assert {row["diagnosis"] for row in rows} == {"unknown", "nevus", "melanoma", "seborrheic keratosis"}
    for column in ("sex", "age_approx", "anatom_site_general_challenge"):
        blank = sum(not row[column] for row in rows)
        assert 0 < blank < 0.2 * len(rows), column
    image = cv2.imread(str(folder / "train" / f"{images[0].name}.jpg"))
    assert image.shape == (96, 96, 3)


def test_patients_have_1_to_20_images_skewed():
    per_patient = np.bincount([p.patient.number for p in phantoms.plan(400, 3, 0.3)])
    assert per_patient.min() >= 1
    assert per_patient.max() <= phantoms.MOST_IMAGES
    assert np.mean(per_patient) > np.median(per_patient)


def test_same_seed_same_bytes_other_seed_other_images(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        phantoms.write(tmp_path / name, patients=3, seed=seed, size=48, malignant_share=0.3)
    a, b, c = (files_of(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_a_larger_set_begins_with_the_smaller(tmp_path):
    phantoms.write(tmp_path / "small", patients=2, seed=1, size=48, malignant_share=0.3)
    phantoms.write(tmp_path / "large", patients=4, seed=1, size=48, malignant_share=0.3)
    small, large = files_of(tmp_path / "small"), files_of(tmp_path / "large")
    assert large["train.csv"].startswith(small["train.csv"])
    images = [name for name in small if name.endswith(".jpg")]
    assert images
    assert all(small[name] == large[name] for name in images)


def test_size_changes_the_sharpness_and_not_the_lesion():
    for phantom in phantoms.plan(2, 4, 0.5)[:4]:
        small, large = phantoms.picture(phantom, 4, 48), phantoms.picture(phantom, 4, 192)
        shrunk = cv2.resize(large, (48, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk.astype(int) - small).mean() < 6


@pytest.mark.parametrize("name", ["asymmetry", "border", "colours", "diameter"])
def test_each_abcd_parameter_is_higher_in_malignant_and_overlaps(name):
    images = phantoms.plan(200, 0, 0.3)
    area = roc_auc_score([p.malignant for p in images], [getattr(p.lesion, name) for p in images])
    # One latent number alone reaches Φ(SHIFT / √2); rounding to whole colours costs a little.
    assert area == pytest.approx(norm.cdf(phantoms.SHIFT / math.sqrt(2)), abs=0.05)


def test_all_four_parameters_together_reach_the_stated_ceiling():
    images = phantoms.plan(300, 0, 0.3)
    abcd = np.array(
        [[p.lesion.asymmetry, p.lesion.border, p.lesion.colours, np.log(p.lesion.diameter)] for p in images]
    )
    abcd[:, :2] = np.log(abcd[:, :2] / (1 - abcd[:, :2]))
    malignant = np.array([p.malignant for p in images])
    scores = cross_val_predict(LogisticRegression(), abcd, malignant, cv=5, method="decision_function")
    assert roc_auc_score(malignant, scores) == pytest.approx(norm.cdf(math.sqrt(2) * phantoms.SHIFT), abs=0.03)


@pytest.mark.parametrize(
    ("name", "column"), [("asymmetry", 0), ("darkness", 1), ("border", 2), ("colour", 5), ("diameter", -1)]
)
def test_pixels_show_each_property_higher_in_malignant_and_overlapping(features, name, column):
    values, malignant, _ = features
    assert 0.6 < roc_auc_score(malignant, values[:, column]) < 0.93, name


def test_hand_made_features_separate_but_not_perfectly(features):
    values, malignant, patient = features
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scores = cross_val_predict(model, values, malignant, groups=patient, cv=GroupKFold(5), method="decision_function")
    assert 0.8 < roc_auc_score(malignant, scores) < 0.95


def corner_colour(image: np.ndarray) -> np.ndarray:
    """Median colour of the rim, without a black stop."""
    rim = np.concatenate([image[:12].reshape(-1, 3), image[-12:].reshape(-1, 3)])
    return np.median(rim[rim.max(axis=1) > 40], axis=0)


def test_images_of_a_patient_share_the_skin_tone(drawn):
    folder, images = drawn
    colours: dict[int, list[np.ndarray]] = {}
    for p in images:
        image = cv2.imread(str(folder / "train" / f"{p.name}.jpg"))
        colours.setdefault(p.patient.number, []).append(corner_colour(image))
    several = [np.array(c) for c in colours.values() if len(c) >= 4]
    assert len(several) > 10
    within = np.mean([c.var(axis=0).sum() for c in several])
    between = np.array([c.mean(axis=0) for c in several]).var(axis=0).sum()
    assert between > 5 * within


def test_skin_tones_span_human_skin():
    """Individual typology angle (Del Bino and Bernerd 2013): above 55° very light, below -30° dark."""
    skins = {p.patient.number: p.patient.skin for p in phantoms.plan(300, 0, 0.3)}.values()
    rgb = np.clip([skin.colour() for skin in skins], 0, 1).astype(np.float32)[None]
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    angle = np.degrees(np.arctan2(lab[:, 0] - 50, lab[:, 2]))
    assert angle.max() > 55
    assert angle.min() < -30
    assert np.mean(angle > 28) > 0.4  # light and intermediate skin is the majority, as in the archive


def test_listed_duplicates_are_near_identical_images_of_one_patient(drawn):
    folder, images = drawn
    pairs = rows_of(folder / "ISIC_2020_Training_Duplicates.csv")
    assert len(pairs) >= 3
    row = {r["image_name"]: r for r in rows_of(folder / "train.csv")}

    def pixels(name: str) -> np.ndarray:
        return cv2.imread(str(folder / "train" / f"{name}.jpg")).astype(float)

    for pair in pairs:
        first, second = pair["image_name_1"], pair["image_name_2"]
        assert first != second
        same = ("patient_id", "target", "diagnosis", "anatom_site_general_challenge")
        assert all(row[first][key] == row[second][key] for key in same)
        difference = np.abs(pixels(first) - pixels(second)).mean()
        assert 0 < difference < 8
    others = [np.abs(pixels(a.name) - pixels(b.name)).mean() for a, b in pairwise(images[:6])]
    assert min(others) > 8


def test_diameter_is_in_millimetres_of_the_field_of_view():
    """A 6 mm lesion covers four times the area of a 3 mm one in the same field."""
    skin = Skin(melanin=0.15, redness=0.12, hairs=0, light=(1.0, 1.0, 1.0))

    def area(diameter: float, seed: int) -> int:
        lesion = Lesion(asymmetry=0.0, border=0.0, colours=1, diameter=diameter)
        return int(segment(draw(skin, lesion, 128, np.random.default_rng(seed))).sum())

    ratios = [area(6, seed) / area(3, seed) for seed in range(9)]
    assert np.median(ratios) == pytest.approx(4, rel=0.25)


def test_only_a_new_or_empty_folder_is_written(tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    phantoms.write(taken, patients=1, seed=0, size=16, malignant_share=0.3)  # empty: fine
    before = files_of(taken)
    with pytest.raises(InputError, match="not an empty folder"):
        phantoms.write(taken, patients=1, seed=1, size=16, malignant_share=0.3)
    assert files_of(taken) == before
    with pytest.raises(InputError, match="not an empty folder"):
        phantoms.write(taken / "train.csv", patients=1, seed=1, size=16, malignant_share=0.3)


def test_an_interrupted_set_has_no_train_csv(tmp_path, monkeypatch):
    draw_one = phantoms.picture

    def fails_at_the_third(phantom, seed, size):
        if phantom.number == 2:
            raise KeyboardInterrupt
        return draw_one(phantom, seed, size)

    monkeypatch.setattr(phantoms, "picture", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        phantoms.write(tmp_path / "set", patients=5, seed=0, size=16, malignant_share=0.3)
    assert len(list((tmp_path / "set" / "train").iterdir())) == 2
    assert not (tmp_path / "set" / "train.csv").exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("patients", 0), ("seed", -1), ("size", 8), ("malignant_share", 1.5), ("malignant_share", math.nan)],
)
def test_a_number_out_of_range_names_its_flag(tmp_path, flag, value):
    arguments = {"patients": 1, "seed": 0, "size": 16, "malignant_share": 0.3, flag: value}
    with pytest.raises(InputError, match=f"--{flag} {value}"):
        phantoms.write(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_malignant_share_is_obeyed():
    for share in (0.0, 0.0176, 0.5, 1.0):
        images = phantoms.plan(300, 2, share)
        assert np.mean([p.malignant for p in images]) == pytest.approx(share, abs=0.04)
