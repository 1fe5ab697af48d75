import json
import shutil

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.nn import functional as F
from transformers import AutoImageProcessor

from callbacks.predictions import PredictionsWriter
from dermsynth.classification.classifier import Classifier, balanced_weights
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.loading.transforms import Transform
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.run.schedules import WarmupCosine
from tests.builders import make_set
from tests.pretended_gpu import fit_on_pretended_gpu

CLASSES = ["NV", "MEL", "SK"]
TINY = {
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


class Bands(L.LightningDataModule):
    """Images whose class is the bright third of the rows: separable, and not by the mean."""

    def __init__(self, per_class=(40, 20, 4), size=16):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.class_counts = list(per_class)
        label = torch.arange(3).repeat_interleave(torch.tensor(per_class))
        label = label[torch.randperm(len(label), generator=generator)]
        images = 0.2 * torch.randn(len(label), 3, size, size, generator=generator)
        third = size // 3
        for image, name in zip(images, label, strict=True):
            image[:, name * third : (name + 1) * third] += 1
        self.items = [
            {
                "pixel_values": image,
                "label": name,
                "synthetic": torch.tensor(False),
                "image_id": f"image{i:03}",
                "group": f"group{i // 2}",
            }
            for i, (image, name) in enumerate(zip(images, label, strict=True))
        ]

    def loader(self):
        return torch.utils.data.DataLoader(self.items, batch_size=24)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


def classifier(**kwargs):
    L.seed_everything(0, verbose=False)
    arguments = {
        "classes": CLASSES,
        "model": TINY,
        "optimizer": lambda p: torch.optim.AdamW(p, lr=3e-3),
        "lr_scheduler": lambda o: WarmupCosine(o, warmup_steps=5, total_steps=42),
    }
    return Classifier(**arguments | kwargs)


def trainer(folder, steps=42, **kwargs):
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{"callbacks": [ModelCheckpoint(folder, "best", save_last=True)]} | kwargs,
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    model, run = classifier(), trainer(folder)
    run.fit(model, Bands())
    return model, run, folder / "last.ckpt"


def test_learns_a_separable_problem_and_logs_it(fitted):
    _, run, _ = fitted
    logged = {name: value.item() for name, value in run.callback_metrics.items()}
    assert logged["val/auroc"] > 0.99
    assert logged["val/balanced_accuracy"] > 0.95
    assert logged["val/loss"] < 0.2
    assert {"train/loss", "val/accuracy", "val/sensitivity/MEL", "val/specificity/SK"} <= logged.keys()


def test_learning_rate_moved_once_an_optimizer_step(fitted):
    _, run, _ = fitted
    assert run.global_step == 42
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)


def test_checkpoint_says_what_it_is_and_loads_with_weights_only(fitted):
    model, _, path = fitted
    checkpoint = torch.load(path, weights_only=True)
    facts = json.loads(json.dumps(checkpoint["dermsynth"]))
    assert (facts["kind"], facts["classes"]) == ("classifier", CLASSES)
    assert facts["model"]["hidden_size"] == 32
    assert torch.equal(checkpoint["state_dict"]["class_weight"], model.class_weight)
    assert "hyper_parameters" not in checkpoint


def test_tested_from_its_checkpoint_it_gives_the_same_numbers(fitted, tmp_path):
    _, run, path = fitted
    expected = {name.removeprefix("val/"): v.item() for name, v in run.callback_metrics.items() if "val/" in name}
    again = trainer(tmp_path, callbacks=[], enable_checkpointing=False)
    (found,) = again.test(classifier(), Bands(), ckpt_path=path, verbose=False, weights_only=True)
    assert {name.removeprefix("test/"): v for name, v in found.items()} == pytest.approx(expected, abs=1e-5)


def test_validation_loss_is_the_weighted_mean_over_all_images_whatever_the_batches(fitted):
    model, run, _ = fitted
    model.eval()
    items = Bands().items
    with torch.no_grad():
        logits = model(torch.stack([item["pixel_values"] for item in items]))
    label = torch.stack([item["label"] for item in items])
    expected = F.cross_entropy(logits, label, torch.tensor(balanced_weights([40, 20, 4])))
    assert run.callback_metrics["val/loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_predict_returns_what_test_returns(fitted):
    model, run, _ = fitted
    batches = run.predict(model, Bands())
    assert batches[0].keys() == {"probabilities", "label", "image_id", "group"}
    assert batches[0]["image_id"][:2] == ["image000", "image001"]
    torch.testing.assert_close(batches[0]["probabilities"].sum(dim=1), torch.ones(24))


def test_training_loss_is_torchs_weighted_smoothed_cross_entropy():
    model = classifier(class_weights=[1.0, 2.0, 5.0], label_smoothing=0.1).eval()
    batch = torch.utils.data.default_collate(Bands().items[:16])
    with torch.no_grad():
        loss, logits = model.training_step(batch, 0), model(batch["pixel_values"])
    reference = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]), label_smoothing=0.1)
    assert loss.item() == pytest.approx(reference(logits, batch["label"]).item())


def test_no_step_waits_for_a_gpu(tmp_path):
    model = classifier(optimizer=lambda groups: torch.optim.AdamW(groups, foreach=True))
    assert fit_on_pretended_gpu(model, Bands((40, 20, 20)), tmp_path, gradient_clip_val=1.0) == 2


def test_balanced_weights_by_hand(fitted):
    model, _, _ = fitted
    assert balanced_weights([40, 20, 4]) == pytest.approx([64 / 120, 64 / 60, 64 / 12])
    assert model.class_weight.tolist() == pytest.approx([64 / 120, 64 / 60, 64 / 12])


@pytest.mark.parametrize(
    ("per_class", "message"), [((5, 5, 0), r"every class .*\[5, 5, 0\]"), (None, "needs a data module")]
)
def test_balanced_weights_need_images_of_every_class(tmp_path, per_class, message):
    data = Bands(per_class or (5, 5, 5))
    if per_class is None:
        del data.class_counts
    with pytest.raises(InputError, match=message):
        trainer(tmp_path, 1).fit(classifier(), data)


def test_checkpoint_of_another_kind_is_refused(fitted, tmp_path):
    _, _, path = fitted
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["dermsynth"] = {"kind": "dreambooth"}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="one of a dreambooth; expected one of a classifier"):
        trainer(tmp_path).test(classifier(), Bands(), ckpt_path=tmp_path / "other.ckpt", verbose=False)
    del checkpoint["dermsynth"]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="not written by dermsynth"):
        trainer(tmp_path).test(classifier(), Bands(), ckpt_path=tmp_path / "other.ckpt", verbose=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["MEL", "NV", "SK"]}, r"made with classes \['NV', 'MEL', 'SK'\]"),
        (
            {"model": TINY | {"intermediate_size": 48}},
            r"another network: .*bias, \(64,\) in the file and \(48,\)",
        ),
        ({"model": TINY | {"num_hidden_layers": 3}}, r"16 weights differ, .*, nothing in the file"),
    ],
)
def test_checkpoint_of_other_classes_or_network_is_refused(fitted, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        trainer(tmp_path).test(classifier(**change), Bands(), ckpt_path=fitted[2], verbose=False)


def test_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"24 x 24 pixels, but the network takes 16 x 16"):
        trainer(tmp_path, 1).fit(classifier(), Bands(size=24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["MEL"]}, "at least two"),
        ({"class_weights": [1.0, 2.0]}, "3 positive numbers"),
        ({"class_weights": [1.0, 2.0, 0.0]}, "3 positive numbers"),
        ({"class_weights": [1.0, 2.0, float("nan")]}, "3 positive numbers"),
        ({"class_weights": [float("inf"), 2.0, 1.0]}, "3 positive numbers"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": float("nan")}, "label_smoothing"),
        ({"image_size": -3}, "model.image_size: -3 must be"),
        ({"model": {**TINY, "num_hidden_layers": 0}}, "model.num_hidden_layers: 0 must be"),
        ({"model": {**TINY, "hidden_size": -4}}, "model.hidden_size: -4 must be"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        classifier(**change)


def data_of(root):
    return ClassificationData(real=root, classes=CLASSES, size=16, batch_size=6)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """A set, a copy of it with train and test swapped, and a checkpoint fitted on the first."""
    folder = tmp_path_factory.mktemp("splits")
    root = make_set(folder / "set")
    swapped = shutil.copytree(root, folder / "swapped")
    table = swapped / manifest.METADATA
    text = table.read_text().replace(",train,", ",?,").replace(",test,", ",train,").replace(",?,", ",test,")
    table.write_text(text)
    trainer(folder / "run", 1).fit(classifier(), data_of(root))
    return root, swapped, folder / "run/last.ckpt"


def test_checkpoint_knows_the_data_that_it_was_fitted_on(splits):
    root, _, path = splits
    facts = torch.load(path, weights_only=True)["dermsynth"]["data"]
    assert facts == {
        "train_split_sha256": manifest.train_split_sha256(manifest.read(root).records),
        "classes": CLASSES,
        "license": "CC0-1.0",
        "attribution": "nobody",
    }


@pytest.mark.parametrize("stage", ["test", "validate", "fit"])
def test_data_that_were_split_otherwise_are_refused_and_nothing_is_written(splits, tmp_path, stage):
    root, swapped, path = splits
    run = trainer(tmp_path, 2, callbacks=[PredictionsWriter()], enable_checkpointing=False)
    seen, ours = (manifest.train_split_sha256(manifest.read(r).records)[:12] for r in (root, swapped))
    with pytest.raises(InputError, match=rf"another train split \({seen}\) than that of the data \({ours}\)"):
        getattr(run, stage)(classifier(), data_of(swapped), ckpt_path=path, weights_only=True)
    assert not list(tmp_path.iterdir())


def test_the_same_split_in_another_folder_is_tested_and_trained_on(splits, tmp_path):
    root, _, path = splits
    copy = shutil.copytree(root, tmp_path / "copy")
    run = trainer(tmp_path / "run", 2, callbacks=[PredictionsWriter()], enable_checkpointing=False)
    run.test(classifier(), data_of(copy), ckpt_path=path, verbose=False, weights_only=True)
    assert (tmp_path / "run/predictions.csv").is_file()
    run.fit(classifier(), data_of(copy), ckpt_path=path, weights_only=True)
    assert run.global_step == 2


def test_an_external_test_set_is_tested_on_when_it_is_named(splits, tmp_path):
    _, swapped, path = splits
    data = data_of(swapped)
    data.external = True  # what data.allow_foreign with the folder's own name sets
    run = trainer(tmp_path, 2, callbacks=[PredictionsWriter()], enable_checkpointing=False)
    run.test(classifier(), data, ckpt_path=path, verbose=False, weights_only=True)
    assert (tmp_path / "predictions.csv").is_file()


def test_a_model_in_memory_is_refused_other_splits_too(splits, tmp_path):
    root, swapped, _ = splits
    run, model = trainer(tmp_path, 1, callbacks=[], enable_checkpointing=False), classifier()
    run.fit(model, data_of(root))
    with pytest.raises(InputError, match="another train split"):
        run.test(model, data_of(swapped), verbose=False)


def test_an_older_checkpoint_and_data_that_say_nothing_pass(splits, tmp_path):
    _, swapped, path = splits
    run = trainer(tmp_path, callbacks=[], enable_checkpointing=False)
    run.test(classifier(), Bands(), ckpt_path=path, verbose=False, weights_only=True)
    run.test(classifier(), Bands().loader(), ckpt_path=path, verbose=False, weights_only=True)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["dermsynth"]["data"]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    run.test(classifier(), data_of(swapped), ckpt_path=tmp_path / "older.ckpt", verbose=False, weights_only=True)


def test_fits_and_saves_without_a_data_module(tmp_path):
    trainer(tmp_path, 1).fit(classifier(class_weights=None), Bands().loader())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["dermsynth"]["data"] == {}


def test_exported_preprocessing_makes_of_an_image_what_the_test_does(tmp_path):
    classifier().export(tmp_path / "out", "transformers")
    content = json.loads((tmp_path / "out/preprocessor_config.json").read_text())
    assert content == {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,
        "do_center_crop": True,
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(noise, (64, 48), interpolation=cv2.INTER_CUBIC)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    found = processor(image, return_tensors="pt")["pixel_values"][0]
    assert found.shape == (3, 16, 16)
    torch.testing.assert_close(found, Transform(16, "none")(image, 0), atol=0.1, rtol=0)


def test_fit_says_which_class_validation_lacks_and_that_nothing_tells_the_best(tmp_path, caplog):
    real = make_set(tmp_path / "real", {"NV": 8, "MEL": 2})  # of MEL one image in train, one in test
    data = ClassificationData(real=real, classes=["NV", "MEL"], size=16, batch_size=5)
    keeper = ModelCheckpoint(tmp_path / "run", monitor="val/auroc", mode="max")
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        trainer(tmp_path, steps=1, callbacks=[keeper]).fit(classifier(classes=["NV", "MEL"]), data)
    said = [record.getMessage() for record in caplog.records]
    start = "val: no image of MEL; NaN, and left out of means: "
    undefined = next(line.removeprefix(start).split(", ") for line in said if line.startswith(start))
    assert {"val/auroc", "val/sensitivity/MEL", "val/specificity/NV"} <= set(undefined)
    assert not {"val/accuracy", "val/sensitivity/NV"} & set(undefined)
    assert any(line.startswith("warning: ModelCheckpoint monitors val/auroc, which will be NaN") for line in said)


@pytest.mark.parametrize(
    "callback",
    [
        lambda folder: ModelCheckpoint(folder, monitor="val/auroc"),  # Lightning's own mode is min
        lambda folder: EarlyStopping("val/sensitivity/NV", mode="min"),
    ],
)
def test_a_callback_that_would_keep_the_worst_is_refused(tmp_path, callback):
    watching = callback(tmp_path)
    with pytest.raises(InputError, match=f"{type(watching).__name__} monitors .* with mode min.*Set mode: max"):
        trainer(tmp_path, steps=1, callbacks=[watching]).fit(classifier(), Bands())
    # Of these nothing is known, or it is right.
    right = [ModelCheckpoint(tmp_path, monitor="val/loss"), EarlyStopping("val/auroc", mode="max", strict=False)]
    trainer(tmp_path, steps=1, callbacks=right).fit(classifier(), Bands())


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_of_another_type_train_and_are_validated(tmp_path, precision):
    run = trainer(tmp_path, steps=2, precision=precision, callbacks=[], limit_train_batches=2)
    run.fit(classifier(), Bands())
    assert run.callback_metrics["val/loss"].isfinite()
    assert run.lightning_module.class_weight.dtype == (torch.bfloat16 if precision == "bf16-true" else torch.float64)
