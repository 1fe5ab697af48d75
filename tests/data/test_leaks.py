import pytest

from dermsynth.data import leaks, manifest
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set


@pytest.fixture
def real(tmp_path):
    return manifest.read(make_set(tmp_path / "real"))


def generated(tmp_path, real, split="train", fitted_on=None, origin="synthetic"):
    fitted_on = manifest.train_split_sha256(real.records) if fitted_on is None else fitted_on
    counts = dict.fromkeys(CLASSES, 2)
    return manifest.read(make_set(tmp_path / "made", counts, split, origin, train_split_sha256=fitted_on))


def test_images_of_a_generator_of_the_same_train_split_pass(tmp_path, real):
    leaks.check(real, [generated(tmp_path, real)], allow_foreign=[])


def test_a_generator_that_saw_another_split_is_refused_unless_allowed_by_name(tmp_path, real):
    foreign = generated(tmp_path, real, fitted_on="0" * 64)
    with pytest.raises(InputError, match="another train split"):
        leaks.check(real, [foreign], allow_foreign=[])
    leaks.check(real, [foreign], allow_foreign=["made"])
    with pytest.raises(InputError, match="typo is not the folder name"):
        leaks.check(real, [foreign], allow_foreign=["made", "typo"])


def test_an_unknown_generator_is_refused_except_for_class_images(tmp_path, real):
    unknown = generated(tmp_path, real, fitted_on="")
    with pytest.raises(InputError, match=r"another train split \(none\)"):
        leaks.check(real, [unknown], allow_foreign=[])
    leaks.check(real, [unknown], allow_foreign=[], for_prior=True)


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_generated_image_is_validated_or_tested_on(tmp_path, real, split):
    with pytest.raises(InputError, match=f"split {split}"):
        leaks.check(real, [generated(tmp_path, real, split=split)], allow_foreign=["made"])


def test_real_and_generated_sets_do_not_change_places(tmp_path, real):
    made = generated(tmp_path, real)
    with pytest.raises(InputError, match=r"data\.real takes real images only"):
        leaks.check(made, [], allow_foreign=[])
    with pytest.raises(InputError, match="origin real"):
        leaks.check(real, [generated(tmp_path / "x", real, origin="real")], allow_foreign=[])


def test_the_split_is_known_by_its_ids_not_its_pixels(tmp_path):
    small, large = (manifest.read(make_set(tmp_path / str(px), size=px)) for px in (16, 32))
    assert manifest.train_split_sha256(small.records) == manifest.train_split_sha256(large.records)
    fewer = [r for r in small.records if not r.image_id.endswith("000")]
    assert manifest.train_split_sha256(fewer) != manifest.train_split_sha256(small.records)
