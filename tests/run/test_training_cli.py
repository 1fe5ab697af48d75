"""Training through the real command line, on a model of three weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dermsynth.cli import main
from dermsynth.run.folder import FINISHED
from tests.builders import make_set
from tests.line import checkpoint, fit
from tests.processes import Ranks

TESTS = Path(__file__).parents[1]


def test_a_run_is_one_folder(here):
    assert fit() == 0
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 8
    assert Path("r/checkpoints/best.ckpt").is_file()
    assert len(list(Path("r").glob("events.out.tfevents*"))) == 1
    assert (Path("r") / FINISHED).read_text() == "8 steps, 2 epochs\n"
    assert sorted(p.name for p in here.iterdir()) == ["line.yaml", "r"]
    saved = yaml.safe_load(Path("r/fit.yaml").read_text())
    assert saved["model"] == {
        "class_path": "toy.Line",
        "init_args": {"lr": 0.01, "width": 1, "worse": False},
    }
    assert saved["trainer"]["use_distributed_sampler"] is False
    assert saved["seed_everything"] == 0


def test_the_datas_classes_reach_a_model_that_takes_them(here):
    fit("--model", "toy.Labelled", "--data.classes", "[NV, MEL]")
    module = yaml.safe_load(Path("r/fit.yaml").read_text())
    assert module["data"]["init_args"]["classes"] == ["NV", "MEL"]
    arguments = ["--ckpt_path", "r/checkpoints/best.ckpt"]
    assert main(["test", "--config", "r/fit.yaml", *arguments]) == 0


def test_checkpoints_of_other_models_are_refused_by_file(here, capsys):
    fit()
    good = checkpoint("r/checkpoints/best.ckpt")
    torch.save({**good, "dermsynth": {"kind": "classifier"}}, "other.ckpt")
    torch.save({**good, "code": Path}, "code.ckpt")
    Path("cut.ckpt").write_bytes(Path("r/checkpoints/best.ckpt").read_bytes()[:700])
    capsys.readouterr()
    for flags, said in (
        (
            ["--ckpt_path", "other.ckpt"],
            "other.ckpt: the checkpoint is one of a classifier; expected one of a line",
        ),
        (["--ckpt_path", "code.ckpt"], "code.ckpt: not a checkpoint, or it holds more than tensors"),
        (["--ckpt_path", "cut.ckpt"], "cut.ckpt: not a whole checkpoint"),
        (["--ckpt_path", "r/checkpoints/best.ckpt", "--model.width", "2"], "best.ckpt: Error(s) in loading"),
    ):
        assert main(["test", "--config", "line.yaml", "--run", "t", *flags]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


@pytest.mark.parametrize("kind", ["BrokenImageError", "InputError"])
def test_a_loader_process_names_the_broken_image_without_a_traceback(here, capsys, kind):
    assert fit("--data", "toy.Broken", "--data.kind", kind, "--trainer.num_sanity_val_steps", "0") == 2
    said = capsys.readouterr().err
    assert "a/b.png: truncated." in said
    assert "Traceback" not in said
    assert "Caught" not in said


@pytest.mark.slow
def test_two_processes_train_as_one_run(here):
    """The processes that Lightning starts read the same command line; one of them writes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "dermsynth", "fit", "--config", "line.yaml", "--run", "r"]
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    subprocess.run([*command, *more], env=environment, check=True, timeout=600)
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 8
    again = subprocess.run([*command, *more], env=environment, check=True, capture_output=True, text=True, timeout=600)
    assert again.stdout.count("r is complete") == 1


@pytest.mark.slow
def test_of_two_processes_none_waits_for_one_that_failed(here):
    """One process of a machine makes the pixel cache; of its broken image both hear, and both end."""
    first = make_set(here / "real") / "images" / "r_NV_000.png"
    first.write_bytes(first.read_bytes()[:-5])
    settings = {"real": "real", "classes": "[NV,MEL,SK]", "size": "16", "batch_size": "2", "pixel_cache": "cache"}
    command = ["fit", "--config", "line.yaml", "--run", "r"]
    command += ["--model", "toy.Labelled", "--data", "dermsynth.data.loading.modules.ClassificationData"]
    command += [word for name, value in settings.items() for word in (f"--data.{name}", value)]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.num_sanity_val_steps", "0"]
    ranks = Ranks(command, 2, here)
    assert ranks.statuses() == [2, 2], ranks.log(0)
    for rank in (0, 1):
        assert ranks.log(rank).count("r_NV_000.png: truncated") == 1
        assert "Traceback" not in ranks.log(rank)


def test_a_training_that_would_never_validate_is_refused(here, capsys):
    steps = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "3"]
    more = ["--trainer.val_check_interval", "5", "--trainer.check_val_every_n_epoch", "null"]
    assert fit(*steps, *more) == 2
    assert "trainer.val_check_interval: 5 is more than trainer.max_steps, 3" in capsys.readouterr().err


def test_accumulation_on_a_static_graph_is_refused(here, capsys):
    overlay = TESTS.parent / "configs" / "overlays" / "ddp.yaml"
    flags = ["--config", str(overlay), "--trainer.accelerator", "cpu", "--trainer.accumulate_grad_batches", "2"]
    assert fit(*flags) == 2
    assert "--trainer.strategy.static_graph false" in capsys.readouterr().err
