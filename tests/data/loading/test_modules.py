from dataclasses import replace

import pytest
import torch

from dermsynth.data.loading.modules import ClassificationData, DreamBoothData
from dermsynth.data.mixing.policies import (
    CountPerClass,
    OversampledReal,
    PriorPreservation,
    Ratio,
    RealOnly,
    SyntheticFirst,
)
from dermsynth.data.sets import manifest, near_duplicates
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set
from tests.ranks import at_once, rank_here


@pytest.fixture
def real(tmp_path):
    return make_set(tmp_path / "real")


@pytest.fixture
def synthetic(tmp_path, real):
    split = manifest.train_split_sha256(manifest.read(real).records)
    return make_set(tmp_path / "made", dict.fromkeys(CLASSES, 6), "train", "synthetic", train_split_sha256=split)


def test_classification_batches_hold_the_contract(real, synthetic):
    data = ClassificationData(real=real, synthetic=[synthetic], classes=CLASSES, size=16, batch_size=4, mix=Ratio(0.5))
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 6
    batch = batches[0]
    assert batch["pixel_values"].shape == (4, 3, 16, 16)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"].min() >= -1
    assert batch["pixel_values"].max() <= 1
    assert batch["label"].dtype == torch.int64
    assert batch["synthetic"].dtype == torch.bool
    seen = {i for b in batches for i in b["image_id"]}
    assert sum(int(b["synthetic"].sum()) for b in batches) == 12
    assert len([name for name in seen if name.startswith("r_")]) == 12
    for b in batches:
        for image_id, label, is_synthetic in zip(b["image_id"], b["label"], b["synthetic"], strict=True):
            assert CLASSES[label] in image_id
            assert image_id.startswith("s_") == bool(is_synthetic)
    assert data.class_counts == [8, 8, 8]


@pytest.mark.parametrize(
    ("mix", "real_counts", "generated_counts"),
    [
        (RealOnly(), [4, 4], [0, 0]),
        (CountPerClass([2, 6]), [4, 4], [2, 6]),
        (OversampledReal(CountPerClass([2, 6])), [6, 10], [0, 0]),
    ],
)
def test_class_counts_are_those_of_the_mix_and_the_batches_hold_them(
    real, synthetic, mix, real_counts, generated_counts
):
    data = ClassificationData(
        real=real, synthetic=[synthetic], classes=["NV", "MEL"], size=16, batch_size=4, mix=mix, augmentation="none"
    )
    data.setup("fit")
    label, generated = (torch.cat([b[key] for b in data.train_dataloader()]) for key in ("label", "synthetic"))
    assert torch.bincount(label[~generated], minlength=2).tolist() == real_counts
    assert torch.bincount(label[generated], minlength=2).tolist() == generated_counts
    assert data.class_counts == [sum(pair) for pair in zip(real_counts, generated_counts, strict=True)]


def test_an_arm_of_real_images_is_the_same_whether_generated_sets_are_named_or_not(real, synthetic):
    def shown(sets):
        data = ClassificationData(real=real, synthetic=sets, classes=CLASSES, size=16, batch_size=4)
        data.setup("fit")
        batches = list(data.train_dataloader())
        pixels = torch.cat([batch["pixel_values"] for batch in batches])
        return [name for batch in batches for name in batch["image_id"]], pixels, data.class_counts

    (names, pixels, counts), (others, other_pixels, other_counts) = shown([]), shown([synthetic])
    assert names == others
    assert pixels.equal(other_pixels)
    assert counts == other_counts


def test_class_counts_of_a_schedule_are_those_it_ends_on(tmp_path, synthetic):
    skewed = make_set(tmp_path / "skewed", {"NV": 12, "MEL": 4})
    data = ClassificationData(
        real=skewed,
        synthetic=[synthetic],
        classes=["NV", "MEL"],
        size=16,
        batch_size=4,
        mix=SyntheticFirst(1),
        allow_foreign=[synthetic.name],
    )
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["synthetic"].all()
    assert data.class_counts == [6, 2]


def test_pixels_are_the_image_scaled_to_plus_minus_one(real):
    import cv2

    data = ClassificationData(real=real, classes=CLASSES, size=16, batch_size=2)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    bgr = cv2.imread(str(real / "images" / f"{batch['image_id'][0]}.png"))
    expected = torch.from_numpy(bgr[:, :, ::-1].copy()).permute(2, 0, 1) / 255 * 2 - 1
    torch.testing.assert_close(batch["pixel_values"][0], expected, atol=1e-6, rtol=0)


def test_validation_and_test_hold_real_images_only_and_each_once(real, synthetic):
    data = ClassificationData(real=real, synthetic=[synthetic], classes=CLASSES, size=16, batch_size=4, mix=Ratio(0.5))
    for stage, loader in (("validate", data.val_dataloader), ("test", data.test_dataloader)):
        data.setup(stage)
        ids = [i for b in loader() for i in b["image_id"]]
        assert len(ids) == len(set(ids)) == 6
        assert all(i.startswith("r_") for i in ids)


def test_images_of_other_classes_are_left_out_and_malignancy_is_a_label_too(real):
    data = ClassificationData(real=real, classes=["MEL", "NV"], size=16, batch_size=2)
    data.setup("fit")
    assert {s.record.diagnosis for s in data.samples["train"]} == {"MEL", "NV"}
    binary = ClassificationData(real=real, classes=["benign", "malignant"], size=16, batch_size=2)
    binary.setup("fit")
    assert [(s.record.diagnosis == "MEL") == (s.label == 1) for s in binary.samples["train"]] == [True] * 12


def test_dreambooth_batches_are_half_prior_with_their_own_prompts(real, synthetic):
    data = DreamBoothData(
        real=real, synthetic=[synthetic], classes=CLASSES, size=16, batch_size=4, mix=PriorPreservation(), token="zyq"
    )
    data.setup("fit")
    for batch in data.train_dataloader():
        assert batch["prior"].tolist() == [False, True, False, True]
        for prompt, prior, label in zip(batch["prompt"], batch["prior"], batch["label"], strict=True):
            lesion = ["nevus", "melanoma", "seborrheic keratosis"][label]
            assert prompt == f"a dermoscopic image of {'' if prior else 'zyq '}{lesion}"


def test_a_real_set_that_is_named_is_an_external_one(real):
    def external(names):
        data = ClassificationData(real=real, classes=CLASSES, size=16, batch_size=2, allow_foreign=names)
        data.setup("test")
        return data.external

    assert external([real.name])
    assert not external([])


def test_an_odd_batch_cannot_hold_two_halves(real):
    with pytest.raises(InputError, match=r"data\.batch_size: 3 must be a positive multiple of 2"):
        DreamBoothData(real=real, classes=CLASSES, size=16, batch_size=3, mix=PriorPreservation())


def test_two_ranks_see_what_one_process_sees(real):
    def ids(trainer, batch_size=2):
        data = ClassificationData(real=real, classes=CLASSES, size=16, batch_size=batch_size)
        data.trainer = trainer
        data.setup("fit")
        return [b["image_id"] for b in data.train_dataloader()]

    two = [a + b for a, b in zip(*at_once(ids), strict=True)]
    assert two == ids(None, 4)


class TestLeaksAreLookedForOnce:
    """By one process; the others hear what it found."""

    @pytest.fixture
    def setup(self, real, synthetic):
        def run(trainer):
            data = ClassificationData(real=real, synthetic=[synthetic], classes=CLASSES, size=16, batch_size=4)
            data.trainer = trainer
            data.setup("fit")

        return run

    def test_a_clean_set_passes_in_all(self, setup, monkeypatch):
        searches = []
        find = near_duplicates.find_between
        monkeypatch.setattr(near_duplicates, "find_between", lambda *sets: searches.append(rank_here()) or find(*sets))
        assert at_once(setup) == [None, None]
        assert searches == [0]

    def test_a_leak_is_an_error_in_all_and_none_waits(self, setup, monkeypatch):
        monkeypatch.setattr(near_duplicates, "find_between", lambda *sets: [(0, 0)] if rank_here() == 0 else [])
        first, second = at_once(setup)
        assert type(first) is type(second) is InputError
        assert "1 near-copies of images" in str(first)
        assert str(first) == str(second)

    def test_a_crash_ends_all(self, setup, monkeypatch):
        monkeypatch.setattr(near_duplicates, "find_between", lambda *sets: 1 / 0)
        first, second = at_once(setup)
        assert isinstance(first, ZeroDivisionError)
        assert "process 0 failed: ZeroDivisionError" in str(second)


@pytest.mark.parametrize(("stage", "split"), [("fit", "val"), ("validate", "val"), ("test", "test")])
def test_fewer_held_out_images_than_processes_are_refused_by_all(tmp_path, stage, split):
    few = make_set(tmp_path / "few", {"NV": 4})  # one to validate on and one to test on

    def load(rank):
        data = ClassificationData(real=few, classes=["NV"], size=16, batch_size=1)
        data.trainer = rank
        data.setup(stage)
        return data.test_dataloader() if stage == "test" else data.val_dataloader()

    errors = at_once(load)
    assert all(isinstance(error, InputError) for error in errors)
    assert all(f"has 1 images of the classes NV in its {split} split, fewer than the 2" in str(e) for e in errors)


def test_a_class_without_training_images_is_refused_with_what_there_is(real):
    data = ClassificationData(real=real, classes=["NV", "BCC"], size=16, batch_size=2)
    with pytest.raises(InputError, match=r"no training image of BCC .*\(NV 4, BCC 0; 8 of 12 images"):
        data.setup("fit")


def test_it_says_what_is_trained_on_and_how_often_generated_images_repeat(real, synthetic, caplog):
    with caplog.at_level("INFO"):
        ClassificationData(
            real=real, synthetic=[synthetic], classes=["NV", "MEL"], size=16, batch_size=2, mix=Ratio(0.8)
        ).setup("fit")
    assert "train: NV 4, MEL 4; 4 of 12 images of other classes left out" in caplog.text
    assert "an epoch: 8 real images, each shown once, and 12 generated images, each shown 2.7 times" in caplog.text


def test_missing_class_in_a_split_is_said(tmp_path):
    only_train = make_set(tmp_path / "only", {"NV": 4}, split="train")
    data = ClassificationData(real=only_train, classes=["NV"], size=16, batch_size=2)
    with pytest.raises(InputError, match="no image of the classes NV in its val split"):
        data.setup("fit")


def test_a_fold_decides_what_is_trained_and_tested_on(tmp_path, real):
    images = manifest.read(real)
    records = [replace(r, extra={"fold": str(n % 4)}) for n, r in enumerate(images.records)]
    manifest.write(real, records, {})
    hashes = set()
    for fold in range(4):
        data = ClassificationData(real=real, classes=CLASSES, size=16, batch_size=4, fold=fold)
        data.setup("fit")
        of = {name: {s.record.image_id for s in samples} for name, samples in data.samples.items()}
        assert of["test"] == {r.image_id for n, r in enumerate(records) if n % 4 == fold}
        assert [len(of[name]) for name in ("train", "val", "test")] == [12, 6, 6]
        hashes.add(data.train_split_sha256)
    assert len(hashes) == 4

    of_fold_3 = data.train_split_sha256
    made = make_set(tmp_path / "made", {"NV": 2}, "train", "synthetic", train_split_sha256=of_fold_3)
    arguments = {"real": real, "synthetic": [made], "classes": CLASSES, "size": 16, "batch_size": 4}
    ClassificationData(**arguments, fold=3).setup("fit")
    with pytest.raises(InputError, match="another train split"):
        ClassificationData(**arguments, fold=0).setup("fit")


def test_folds_that_tear_a_group_apart_are_refused(real):
    images = manifest.read(real)
    records = [replace(r, group="one", split="train", extra={"fold": str(n % 4)}) for n, r in enumerate(images.records)]
    manifest.write(real, records, {})
    with pytest.raises(InputError, match="belong to one patient, lesion or group"):
        ClassificationData(real=real, classes=CLASSES, size=16, batch_size=4, fold=0).setup("fit")


def test_generated_images_that_are_excluded_are_not_shown(real, synthetic, capsys):
    images = manifest.read(synthetic)
    reasons = {"s_NV_000": "copy", "s_MEL_001": "blurred"}
    records = [replace(r, extra={**r.extra, manifest.EXCLUDED: reasons.get(r.image_id, "")}) for r in images.records]
    manifest.write(synthetic, records, images.info)
    data = ClassificationData(real=real, synthetic=[synthetic], classes=CLASSES, size=16, batch_size=4, mix=Ratio(0.5))
    data.setup("fit")
    assert len(data.generated) == 3 * 6 - 2
    assert not {sample.record.image_id for sample in data.generated} & set(reasons)
    for _ in range(3):
        shown = {image_id for batch in data.train_dataloader() for image_id in batch["image_id"]}
        assert not shown & set(reasons)
