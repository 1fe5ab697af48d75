from dataclasses import replace

import numpy as np
import pytest

from dermsynth.audit.labels import agreement
from dermsynth.audit.sides import read_sides
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from tests.audit.runs import classifier
from tests.builders import CLASSES, make_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A real set, and a generated one of which a fifth of the nevi look like melanomas."""
    root = tmp_path_factory.mktemp("sets")
    real = make_set(root / "real", dict.fromkeys(CLASSES, 16))
    split = manifest.train_split_sha256(manifest.read(real).records)
    made = make_set(root / "made", {"NV": 20, "MEL": 10, "SK": 5}, "train", "synthetic", train_split_sha256=split)
    records = list(manifest.read(made).records)
    records[:4] = [
        replace(one, file_name=other.file_name, sha256=other.sha256)
        for one, other in zip(records[:4], records[20:24], strict=True)
    ]
    names = {r.file_name for r in records[:4]}
    records = [r for n, r in enumerate(records) if n < 4 or r.file_name not in names]
    manifest.write(made, records, {})
    return real, made


@pytest.fixture(scope="module")
def run(tmp_path_factory, sets):
    return classifier(tmp_path_factory.mktemp("runs") / "real", sets[0])


def test_wrong_labels_are_counted_beside_what_it_says_of_real_images(run, sets):
    found = agreement(run, *read_sides([sets[1]], sets[0]))
    assert (found.classifier, found.left_out) == ("real", 0)
    nevi = found.classes["NV"]
    assert (nevi.n, nevi.decided) == (20, {"NV": 16, "MEL": 4, "SK": 0})
    assert nevi.agreement.value == pytest.approx(0.8)
    assert 0.5 < nevi.agreement.low < nevi.agreement.high < 0.95
    assert (nevi.n_real, nevi.of_real.value) == (8, 1.0)
    assert found.classes["SK"].agreement.value == 1
    assert (found.overall.n, found.overall.n_real) == (31, 24)
    assert found.overall.agreement.value == pytest.approx(27 / 31)


def test_real_classes_weigh_as_the_generated_ones_do(run, sets):
    """Of the real images all melanomas are called nevi now, which are 6 of the 31 generated images."""
    generated, real = read_sides([sets[1]], sets[0])
    false = [(n, replace(r, diagnosis="NV") if r.diagnosis == "MEL" else r) for n, r in real.images]
    found = agreement(run, generated, replace(real, images=tuple(false)))
    assert found.classes["NV"].of_real.value == pytest.approx(0.5)
    assert found.classes["MEL"].of_real.value is None
    assert found.overall.of_real.value == pytest.approx((20 * 0.5 + 5) / 25)


def test_images_of_other_classes_are_left_out(run, sets):
    generated, real = read_sides([sets[1]], sets[0])
    others = [(n, replace(r, diagnosis="BCC") if r.diagnosis == "SK" else r) for n, r in generated.images]
    found = agreement(run, replace(generated, images=tuple(others)), real)
    assert (found.left_out, found.overall.n, list(found.classes)) == (5, 26, ["NV", "MEL"])


def test_what_saw_generated_images_or_another_split_is_refused(run, sets, tmp_path):
    sides = read_sides([sets[1]], sets[0])
    other = make_set(tmp_path / "other", dict.fromkeys(CLASSES, 8))
    with pytest.raises(InputError, match=r"real: it was fitted on another train split"):
        agreement(run, *read_sides([sets[1]], other))
    taught = classifier(tmp_path / "mixed", sets[0], "--data.synthetic", f"[{sets[1]}]", "--data.mix", "SyntheticOnly")
    with pytest.raises(InputError, match=r"mixed: it was trained on generated images, too \(SyntheticOnly\)"):
        agreement(taught, *sides)
    mix = "{class_path: OversampledReal, init_args: {like: {class_path: SyntheticOnly}}}"
    repeated = ["--data.synthetic", f"[{sets[1]}]", "--data.mix", mix]
    assert agreement(classifier(tmp_path / "control", sets[0], *repeated), *sides).overall.n == 31
    assert np.isfinite(agreement(run / "checkpoints" / "last.ckpt", *sides).overall.agreement.value)
