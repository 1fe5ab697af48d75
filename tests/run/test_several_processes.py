"""fit, validate, test and predict of both models on one, two and four processes."""

import csv
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dermsynth.run.folder import last_checkpoint
from tests.builders import CLASSES, make_pipeline, make_set
from tests.processes import Ranks

COUNTS = [1, 2, 4]
OVERLAY = Path(__file__).parents[2] / "configs" / "overlays" / "ddp.yaml"
IMAGES = 8  # of a batch over all ranks
# Sums of the same numbers in another order; measured 2e-7 of a weight, 1e-6 of a loss.
TOLERANCE = 1e-5
TRAINER = {
    "accelerator": "cpu",
    "precision": "32-true",
    "strategy": "ddp",
    "max_epochs": -1,
    "max_steps": 6,
    "val_check_interval": 3,
    "check_val_every_n_epoch": None,
    "log_every_n_steps": 1,
    "gradient_clip_val": 1.0,
    "enable_progress_bar": False,
}
BEST = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"filename": "best", "monitor": "val/loss", "enable_version_counter": False},
}
VIT = {
    "class_path": "dermsynth.classification.classifier.Classifier",
    "init_args": {
        "model": {
            "model_type": "vit",
            "image_size": 16,
            "patch_size": 8,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    },
}
DREAMBOOTH = {
    "class_path": "dermsynth.diffusion.dreambooth.DreamBooth",
    "init_args": {
        "base": "base",
        "sampling": {"steps": 2},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    make_set(root / "real", per_class={"NV": 26, "MEL": 18, "SK": 14})  # 7, 5 and 4 to validate and to test: odd
    make_set(
        root / "made", per_class=dict.fromkeys(CLASSES, 8), split="train", origin="synthetic", train_split_sha256=""
    )
    torch.manual_seed(0)  # how far rounding may take a gradient depends on the weights
    make_pipeline(root / "base")
    return root


def recipe(count, model, data, callbacks):
    data = {**data, "init_args": {**data["init_args"], "classes": CLASSES, "batch_size": IMAGES // count}}
    trainer = {
        **TRAINER,
        "devices": count,
        "callbacks": [{"class_path": c} if isinstance(c, str) else c for c in callbacks],
    }
    return {"trainer": trainer, "model": model, "data": data}


def run(folder, count, stage, config, *words):
    """Run a stage on so many ranks; what each printed."""
    name = f"{Path(words[-1]).name}-{stage}"
    (folder / f"{name}.json").write_text(json.dumps(config))
    ranks = Ranks([stage, "--config", f"{name}.json", *words], count, folder, name)
    assert ranks.statuses() == [0] * count, "\n".join(ranks.log(n) for n in range(count))
    return [ranks.log(n) for n in range(count)]


def scalars(run_folder):
    """All scalars of a run's TensorBoard files, by name: steps and values."""
    board = EventAccumulator(str(run_folder), size_guidance={"scalars": 0})
    board.Reload()
    return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@pytest.fixture(scope="module")
def vit(folder):
    """The runs of a ViT by number of ranks."""
    data = {
        "class_path": "dermsynth.data.loading.modules.ClassificationData",
        "init_args": {"real": "real", "size": 16, "augmentation": "standard"},
    }
    for count in COUNTS:
        config = recipe(count, VIT, data, [BEST, "ShownImages", "PredictionsWriter"])
        name = f"runs/vit-{count}"
        said = run(folder, count, "fit", config, "--run", name)
        assert [log.count(f"finished: {name}") for log in said] == [1] + [0] * (count - 1)
        best = ["--ckpt_path", f"runs/vit-{COUNTS[0]}/checkpoints/best.ckpt"]
        run(folder, count, "validate", config, *best, "--run", f"runs/vit-validate-{count}")
        run(folder, count, "test", config, *best, "--run", f"runs/vit-test-{count}")
    return {count: folder / "runs" / f"vit-{count}" for count in COUNTS}


@pytest.fixture(scope="module")
def dreambooth(folder):
    """The runs of a DreamBooth by number of ranks."""
    data = {
        "class_path": "dermsynth.data.loading.modules.DreamBoothData",
        "init_args": {
            "real": "real",
            "synthetic": ["made"],
            "size": 16,
            "mix": {"class_path": "dermsynth.data.mixing.policies.PriorPreservation"},
        },
    }
    shown = {"prompts": ["sks nevus", "sks melanoma"], "columns": 3, "every_n_steps": 3}
    grid = {"class_path": "callbacks.sample_grid.SampleGrid", "init_args": shown}
    made = {"class_path": "dermsynth.data.loading.generation.GenerationData", "init_args": {"count": 3}}
    for count in COUNTS:
        name = f"runs/dreambooth-{count}"
        run(folder, count, "fit", recipe(count, DREAMBOOTH, data, [BEST, grid]), "--run", name)
        best = ["--ckpt_path", f"runs/dreambooth-{COUNTS[0]}/checkpoints/best.ckpt"]
        run(
            folder,
            count,
            "validate",
            recipe(count, DREAMBOOTH, data, []),
            *best,
            "--run",
            f"runs/dreambooth-validate-{count}",
        )
        config = recipe(count, DREAMBOOTH, made, ["callbacks.image_set_writer.ImageSetWriter"])
        run(folder, count, "predict", config, *best, "--run", f"runs/made-{count}")
    return {count: folder / "runs" / f"dreambooth-{count}" for count in COUNTS}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit", "dreambooth"])
class TestBothModels:
    @pytest.fixture
    def runs(self, model, request):
        return request.getfixturevalue(model)

    def test_one_folder_with_one_set_of_curves(self, runs):
        for run_folder in runs.values():
            (events,) = run_folder.rglob("events.out.tfevents*")
            assert events.parent == run_folder
            curves = {tag: values for tag, values in scalars(run_folder).items() if tag != "epoch"}
            assert all(len(dict(values)) == len(values) for values in curves.values())  # each step once

    @pytest.mark.parametrize("count", COUNTS[1:])
    def test_training_is_that_of_one_process(self, runs, count):
        alone, shared = (torch.load(last_checkpoint(runs[n]), weights_only=True)["state_dict"] for n in (1, count))
        assert alone.keys() == shared.keys()
        for name, weight in alone.items():
            torch.testing.assert_close(shared[name], weight, atol=TOLERANCE, rtol=TOLERANCE, msg=name)

    @pytest.mark.parametrize("count", COUNTS[1:])
    def test_validation_says_the_same(self, runs, model, count):
        alone, shared = (scalars(runs[1].with_name(f"{model}-validate-{n}")) for n in (1, count))
        assert alone.keys() == shared.keys() >= {"val/loss"}
        for tag, ((_, value),) in alone.items():
            assert shared[tag][0][1] == pytest.approx(value, rel=TOLERANCE), tag


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit", "dreambooth"])
def test_the_overlay_for_several_gpus_trains_alike(folder, model, request):
    """Here on CPUs, where Lightning leaves the hook for bf16 gradients out."""
    whole = request.getfixturevalue(model)[2]
    name = f"runs/{model}-overlay"
    flags = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--run", name]
    words = ["fit", "--config", f"{model}-2-fit.json", "--config", str(OVERLAY), *flags]
    ranks = Ranks(words, 2, folder, f"{model}-overlay")
    assert ranks.statuses() == [0, 0], ranks.log(0)
    before = torch.load(last_checkpoint(whole), weights_only=True)["state_dict"]
    after = torch.load(last_checkpoint(folder / name), weights_only=True)["state_dict"]
    for key, weight in before.items():
        torch.testing.assert_close(after[key], weight, atol=TOLERANCE, rtol=TOLERANCE, msg=key)


@pytest.mark.slow
def test_the_overlay_rounds_gradients_alike_on_all_ranks(folder, dreambooth):
    """Lightning leaves the overlay's hook out on CPUs; a callback puts it in its place."""
    flags = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.max_steps", "3"]
    found = {}
    for choice in ("false", "true"):
        name = f"runs/rounded-{choice}"
        hook = ["--trainer.callbacks", "tests.gradients.Gradients", "--trainer.callbacks.rounded", choice]
        words = ["fit", "--config", "dreambooth-2-fit.json", "--config", str(OVERLAY), *flags, *hook, "--run", name]
        ranks = Ranks(words, 2, folder, f"rounded-{choice}")
        assert ranks.statuses() == [0, 0], ranks.log(0)
        found[choice] = [torch.load(folder / name / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    exact, rounded = found["false"][0]["gradients"], found["true"][0]["gradients"]
    assert exact.keys() == rounded.keys()
    for name, gradient in exact.items():
        # bfloat16 rounds by up to 2⁻⁹: each rank's gradient, and their mean, which is smaller where they cancel out.
        torch.testing.assert_close(rounded[name], gradient, rtol=0, atol=2**-7 * float(gradient.abs().max()), msg=name)
        assert torch.equal(rounded[name], rounded[name].bfloat16().float()), name
    assert any(not torch.equal(rounded[name], gradient) for name, gradient in exact.items())
    for name, weight in found["true"][0]["weights"].items():
        assert torch.equal(found["true"][1]["weights"][name], weight), name


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_the_test_sees_each_image_once(vit, folder, count):
    found = rows(vit[1].with_name(f"vit-test-{count}") / "predictions.csv")
    expected = [row["image_id"] for row in rows(folder / "real" / "metadata.csv") if row["split"] == "test"]
    assert sorted(row["image_id"] for row in found) == sorted(expected)
    alone = {row["image_id"]: row for row in rows(vit[1].with_name("vit-test-1") / "predictions.csv")}
    for row in found:
        for name in CLASSES:
            assert float(row[f"p_{name}"]) == pytest.approx(float(alone[row["image_id"]][f"p_{name}"]), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS[1:])
def test_the_test_measures_the_same(vit, count):
    alone, shared = (scalars(vit[n].with_name(f"vit-test-{n}")) for n in (1, count))
    measured = {tag for tag in alone if tag.startswith("test/")}
    assert {"test/loss", "test/auroc", "test/accuracy"} <= measured
    assert alone.keys() == shared.keys()
    for tag in measured:
        ((_, value),), ((_, other),) = alone[tag], shared[tag]
        assert other == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), tag


def grids(run_folder):
    """The sample grids of a run: step and pixels."""
    events = EventAccumulator(str(run_folder)).Reload().Images("samples")
    return {event.step: np.asarray(Image.open(io.BytesIO(event.encoded_image_string))).astype(int) for event in events}


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS[1:])
def test_a_grid_that_ranks_draw_together_is_that_of_one(dreambooth, count):
    """Six images: three each of two ranks; of four, two have two and two have one."""
    alone, shared = grids(dreambooth[1]), grids(dreambooth[count])
    assert alone.keys() == shared.keys() == {0, 3, 6}
    for step, sheet in alone.items():
        assert abs(shared[step] - sheet).max() <= 1, step
        # No two of them are alike, so none can stand in another's place.
        images = [sheet[y : y + 16, x : x + 16] for y in (0, 18) for x in (0, 18, 36)]
        assert all(abs(a - b).max() > 3 for a, b in itertools.combinations(images, 2))


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_each_image_is_generated_once_and_is_the_same(dreambooth, count):
    made = rows(dreambooth[1].with_name(f"made-{count}") / "metadata.csv")
    alone = rows(dreambooth[1].with_name("made-1") / "metadata.csv")
    assert len(alone) == 3 * len(CLASSES)
    assert [row["image_id"] for row in made] == [row["image_id"] for row in alone]
    # At other batch sizes convolutions round otherwise, so a pixel may differ by one level.
    import cv2

    for one, other in zip(made, alone, strict=True):
        left, right = (
            cv2.imread(str(dreambooth[1].with_name(f"made-{n}") / row["file_name"])).astype(int)
            for n, row in ((count, one), (1, other))
        )
        assert abs(left - right).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS[1:])
def test_what_was_drawn_is_counted_over_all_ranks(vit, count):
    alone, shared = ({tag: v for tag, v in scalars(vit[n]).items() if tag.startswith("shown/")} for n in (1, count))
    assert alone == shared
    assert alone
