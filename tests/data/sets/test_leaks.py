import os
from dataclasses import replace

import cv2
import pytest

from dermsynth.data.phantoms.patients import write
from dermsynth.data.sets import leaks, manifest, near_duplicates
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


def test_a_name_that_two_sets_have_allows_neither(tmp_path, real):
    foreign = [generated(tmp_path / parent, real, fitted_on="0" * 64) for parent in "ab"]
    with pytest.raises(InputError, match=r"data\.allow_foreign: made is the folder name of .*a/made and .*b/made"):
        leaks.check(real, foreign, allow_foreign=["made"])
    ours = [generated(tmp_path / parent, real) for parent in "cd"]
    leaks.check(real, ours, allow_foreign=[])


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


def test_no_group_lies_in_two_splits(real):
    train, test = real.split("train")[0], real.split("test")[0]
    torn = replace(real, records=(replace(train, group="g"), replace(test, group="g")))
    with pytest.raises(InputError, match=rf"{test.image_id} \(test\) belong to one patient, lesion or group, but"):
        leaks.check(torn, [], allow_foreign=[])
    same_patient = (replace(train, patient_id="P"), replace(test, patient_id="P"))
    with pytest.raises(InputError, match="are of one patient, but"):
        leaks.check(replace(real, records=same_patient), [], allow_foreign=[])
    leaks.check(replace(torn, records=(torn.records[0], replace(torn.records[1], split="unused"))), [], [])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "isic2020"
    write(folder, patients=4, seed=1, size=128, malignant_share=0.3)
    return [cv2.imread(str(path)) for path in sorted((folder / "train").iterdir())]


class TestCopies:
    """A generator that returns a patient it was to be tested on."""

    @pytest.fixture
    def sets(self, tmp_path, pictures):
        """A real set with a drawn test and train image, and a generated set of its split."""
        real = manifest.read(make_set(tmp_path / "real"))
        for name, picture in zip(("test", "train"), pictures, strict=False):
            cv2.imwrite(str(real.path(real.split(name)[0])), picture)
        records = tuple(replace(r, sha256=manifest.sha256_file(real.path(r))) for r in real.records)
        return replace(real, records=records), generated(tmp_path, real)

    @pytest.mark.parametrize("allowed", [[], ["made"]], ids=["ours", "foreign"])
    def test_a_near_copy_of_a_test_image_is_refused(self, sets, pictures, allowed):
        real, made = sets
        copy = cv2.resize(pictures[0], (96, 96))[:, ::-1]
        encoded = cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        cv2.imwrite(str(made.path(made.records[1])), cv2.imdecode(encoded, cv2.IMREAD_COLOR))
        for _ in range(2):  # what was found once is found again
            with pytest.raises(InputError) as error:
                leaks.check(real, [made], allow_foreign=allowed)
            assert f"{made.records[1].file_name} of {real.split('test')[0].image_id} (test)" in str(error.value)

    def test_a_near_copy_of_a_training_image_is_no_leak(self, sets, pictures):
        real, made = sets
        cv2.imwrite(str(made.path(made.records[1])), pictures[1])
        leaks.check(real, [made], allow_foreign=[])

    def test_a_clean_set_is_searched_once_for_the_same_held_out_images(self, sets, monkeypatch):
        real, made = sets
        searches = []
        find = near_duplicates.find_between
        monkeypatch.setattr(near_duplicates, "find_between", lambda *a: searches.append(1) or find(*a))
        leaks.check(real, [made], allow_foreign=[])
        leaks.check(real, [made], allow_foreign=[])
        assert len(searches) == 1
        leaks.check(replace(real, records=real.records[:-1]), [made], allow_foreign=[])
        leaks.check(real, [replace(made, records=made.records[1:])], allow_foreign=[])
        assert len(searches) == 3
        leaks.check(real, [made], allow_foreign=[])
        assert len(searches) == 3

    @pytest.mark.parametrize("same", ["size", "time"])
    def test_a_file_that_was_replaced_is_searched_again(self, sets, pictures, same):
        """By a copy of a test image, with the row in metadata.csv as it was."""
        real, made = sets
        path, copy = made.path(made.records[1]), cv2.imencode(".png", pictures[0])[1].tobytes()
        if same == "size":
            clean = path.read_bytes()
            path.write_bytes(clean.ljust(len(copy) - 8, b"\0") + clean[-8:])
        leaks.check(real, [made], allow_foreign=[])
        before = path.stat()
        path.write_bytes(copy)
        if same == "time":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(InputError, match=rf"{made.records[1].file_name} of {real.split('test')[0].image_id}"):
            leaks.check(real, [made], allow_foreign=[])

    @pytest.mark.parametrize("spoil", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff\xfe")])
    def test_a_result_that_cannot_be_kept_or_read_stops_nothing(self, sets, spoil):
        real, made = sets
        spoil(made.root / leaks.SEARCHED)
        leaks.check(real, [made], allow_foreign=[])

    def test_a_generator_that_saw_the_test_patients_is_refused(self, sets, tmp_path):
        """Fitted on the same images split otherwise, so that it trained on what is now tested on."""
        real, _ = sets
        swap = {"train": "test", "test": "train"}
        otherwise = [replace(r, split=swap.get(r.split, r.split)) for r in real.records]
        hash_of_other = manifest.train_split_sha256(otherwise)
        with pytest.raises(InputError, match="may have seen the patients you test on"):
            leaks.check(real, [generated(tmp_path / "x", real, fitted_on=hash_of_other)], allow_foreign=[])


@pytest.mark.parametrize("column", ["patient_id", "lesion_id", "sha256"])
def test_a_generated_image_that_says_it_is_of_a_held_out_patient_or_file_is_refused(tmp_path, real, column):
    made, test = generated(tmp_path, real), real.split("test")[0]
    shared = getattr(test, column) or "X"
    ours = replace(real, records=tuple(replace(r, **{column: shared}) if r is test else r for r in real.records))
    theirs = replace(made, records=(replace(made.records[0], **{column: shared}), *made.records[1:]))
    with pytest.raises(InputError, match=rf"made: images {test.image_id} \(test\) and "):
        leaks.check(ours, [theirs], allow_foreign=["made"])


def test_a_held_out_file_that_was_replaced_is_refused_and_a_good_one_read_once(tmp_path, real, monkeypatch):
    leaks.check(real, [], allow_foreign=[])
    with monkeypatch.context() as patch:
        patch.setattr(leaks, "sha256_file", lambda path: pytest.fail("read again"))
        leaks.check(real, [], allow_foreign=[])
    train, test = real.path(real.split("train")[0]), real.path(real.split("test")[0])
    test.write_bytes(train.read_bytes())
    with pytest.raises(InputError, match=rf"{test.name}: another file than .* in the test split"):
        leaks.check(real, [], allow_foreign=[])
