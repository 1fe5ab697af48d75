"""Runs that are stopped and resumed end with the weights of one that was not, bit for bit."""

import resource
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.builders import CLASSES, make_pipeline, make_set
from tests.interruptions import StoppedError, assert_same, checkpoint, classifier, dreambooth, fit


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dermsynth"])


def until_finished(recipe, run, *more, attempts=40):
    """Give the same command again until it ends well; how often that was."""
    for attempt in range(1, attempts + 1):
        try:
            if fit(recipe, run, *more) == 0:
                return attempt
        except StoppedError:
            continue
    raise AssertionError(f"not finished after {attempts} attempts")


def stop_at_each_batch(folder):
    notes = folder / "notes"
    notes.mkdir()
    path = folder / "stops.yaml"
    callback = f"{{class_path: tests.interruptions.AtEachBatch, init_args: {{notes: {notes}}}}}"
    path.write_text(f"trainer: {{callbacks+: [{callback}]}}\n")
    return ["--config", str(path)]


@pytest.mark.parametrize(
    "options",
    [
        {"ema": True, "accumulate": 2, "max_steps": 5},
        {"lora": True},
        {"cache": True, "max_steps": 5},
        {"lora": True, "ema": True, "accumulate": 3, "max_steps": -1, "max_epochs": 2, "limit_val_batches": 0},
    ],
    ids=["all weights", "lora", "latent cache", "without validation"],
)
def test_a_run_stopped_at_every_batch_ends_as_one_that_was_not(base, tmp_path, options):
    recipe = dreambooth(tmp_path, base, **options)
    assert fit(recipe, tmp_path / "whole") == 0
    attempts = until_finished(recipe, tmp_path / "stopped", *stop_at_each_batch(tmp_path))
    assert attempts > checkpoint(tmp_path / "whole")["global_step"]
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_a_classifier_with_dropout_goes_on_with_the_same_units_dropped(tmp_path):
    recipe = classifier(tmp_path)
    assert fit(recipe, tmp_path / "whole") == 0
    until_finished(recipe, tmp_path / "stopped", *stop_at_each_batch(tmp_path))
    assert_same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.eightbit
@pytest.mark.parametrize("kind", ["AdamW8bit", "PagedAdamW8bit"])
def test_an_optimizer_of_eight_bits_goes_on_with_the_same_bits(base, tmp_path, kind):
    """On a CPU, where nothing is paged; from files that load as tensors and plain values alone."""
    recipe = dreambooth(tmp_path, base, lora=True, max_steps=4)
    eight = ["--model.optimizer", f"bitsandbytes.optim.{kind}", "--model.optimizer.lr", "1e-2"]
    eight += ["--model.optimizer.min_8bit_size", "16"]
    assert fit(recipe, tmp_path / "whole", *eight) == 0
    until_finished(recipe, tmp_path / "stopped", *stop_at_each_batch(tmp_path), *eight)
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    saved = str(checkpoint(tmp_path / "whole")["optimizer_states"][0]["state"])
    assert "dtype=torch.uint8" in saved


def test_a_full_disk_stops_the_run_with_a_message_and_room_made_it_goes_on(base, tmp_path, capsys):
    recipe = dreambooth(tmp_path, base, ema=True)
    assert fit(recipe, tmp_path / "whole") == 0
    size = (tmp_path / "whole/checkpoints/last.ckpt").stat().st_size // 2
    full = tmp_path / "full.yaml"
    callback = f"{{class_path: tests.interruptions.DiskFull, init_args: {{step: 3, size: {size}}}}}"
    full.write_text(f"trainer: {{callbacks+: [{callback}]}}\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        assert fit(recipe, tmp_path / "stopped", "--config", str(full)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert "last.ckpt: cannot be written (File too large)." in said
    assert "Make room or correct its permissions, and give the same command again" in said
    assert "Traceback" not in said
    assert checkpoint(tmp_path / "stopped")["global_step"] == 3
    (tmp_path / "stopped/fit.yaml").write_text((tmp_path / "whole/fit.yaml").read_text())
    assert fit(recipe, tmp_path / "stopped") == 0
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_a_longer_run_goes_on_from_the_weights_and_not_from_their_average(base, tmp_path):
    """Where the last step is not validated on, the checkpoint is written before the average takes their place."""
    recipe = dreambooth(tmp_path, base, ema=True, accumulate=2)
    assert fit(recipe, tmp_path / "whole", "--trainer.max_steps", "8") == 0
    assert fit(recipe, tmp_path / "first", "--trainer.max_steps", "5") == 0
    more = ["--ckpt_path", str(tmp_path / "first/checkpoints/last.ckpt"), "--trainer.max_steps", "8"]
    assert fit(recipe, tmp_path / "longer", *more) == 0
    one, other = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "longer")
    for key in ("state_dict", "current_model_state"):
        for name, weight in one[key].items():
            assert torch.equal(other[key][name], weight), name


def test_as_many_checkpoints_are_kept_as_asked_for_also_when_stopped(tmp_path):
    recipe = classifier(tmp_path, max_steps=11)
    more = "{filename: '{step}', monitor: step, mode: max, save_top_k: 3, every_n_train_steps: 2}"
    rotation = tmp_path / "rotation.yaml"
    callback = f"{{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {more}}}"
    rotation.write_text(f"trainer: {{callbacks+: [{callback}]}}\n")
    until_finished(recipe, tmp_path / "run", *stop_at_each_batch(tmp_path), "--config", str(rotation))
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step=10.ckpt", "step=6.ckpt", "step=8.ckpt"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--model.optimizer.lr", "0.5"], "model.init_args.optimizer.init_args.lr: 0.01 there, 0.5 here"),
        (["--data.batch_size", "4"], "data.init_args.batch_size: 2 there, 4 here"),
        (["--seed_everything", "1"], "seed_everything: 0 there, 1 here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_by_the_keys_that_differ(trained, capsys, changes, said):
    recipe, first = trained
    path = str(first / "checkpoints/last.ckpt")
    assert fit(recipe, first.with_name("other"), "--ckpt_path", path, *changes) == 2
    error = capsys.readouterr().err
    assert f"{path}: it was made with another configuration:" in error
    assert said in error
    assert error.count(" there, ") == 1
    assert not first.with_name("other").exists()


def test_a_checkpoint_of_another_base_or_split_is_refused(trained, tmp_path, capsys):
    recipe, first = trained
    path = ["--ckpt_path", str(first / "checkpoints/last.ckpt"), "--trainer.max_steps", "4"]
    other = make_pipeline(tmp_path / "other")
    weights = load_file(other / "unet/diffusion_pytorch_model.safetensors")
    save_file(
        {name: value + 0.01 for name, value in weights.items()}, other / "unet/diffusion_pytorch_model.safetensors"
    )
    assert fit(recipe, tmp_path / "run", *path, "--model.base", str(other)) == 2
    assert "the checkpoint was made on another base" in capsys.readouterr().err
    real = make_set(tmp_path / "real", dict.fromkeys(CLASSES, 12))
    assert fit(recipe, tmp_path / "run", *path, "--data.real", str(real)) == 2
    assert "the checkpoint was fitted on another train split" in capsys.readouterr().err
    assert fit(recipe, tmp_path / "run", *path) == 0  # the very same


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    recipe = dreambooth(folder, base, max_steps=2, limit_val_batches=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dermsynth"])
        assert fit(recipe, folder / "first") == 0
    return recipe, folder / "first"
