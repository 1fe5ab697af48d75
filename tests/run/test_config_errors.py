"""Mistakes in files and flags are named, with the right name beside them."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from dermsynth.cli import main
from tests.line import fit


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "max_epochs",
            "max_epoch",
            "line.yaml, line 3: trainer has no key 'max_epoch'. Did you mean 'max_epochs'?",
        ),
        (
            "ratio:",
            "ratoi:",
            "line.yaml, line 18: toy.Policy has no parameter 'ratoi'. Did you mean 'ratio'?",
        ),
        ("monitor", "monitr", "ModelCheckpoint has no parameter 'monitr'. Did you mean 'monitor'?"),
        ("toy.Data", "toy.Dat", "line.yaml, line 13: no class 'toy.Dat'"),
        ("data:", "dta:", "line.yaml, line 12: the command has no key 'dta'. Did you mean 'data'?"),
        ("init_args:\n    mix", "initargs:\n    mix", "Did you mean 'init_args'?"),
        ("max_epochs: 2", "max_epochs: two", "line.yaml, line 3: "),
        ("ratio: 0.5", "ratio: [", "line.yaml: not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_file_line_and_the_right_name(here, capsys, old, new, said):
    recipe = Path("line.yaml").read_text()
    assert recipe.count(old) == 1
    Path("line.yaml").write_text(recipe.replace(old, new))
    assert fit() == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not Path("r").exists()


def test_an_overlay_before_its_recipe_is_told_from_a_wrong_key(here, capsys):
    Path("faster.yaml").write_text("model: {init_args: {lr: 0.5}}\n")
    assert main(["fit", "--config", "faster.yaml", "--config", "line.yaml", "--run", "r"]) == 2
    assert "faster.yaml, line 1: 'lr' is given before the class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch: trainer has no key 'max_epoch'"),
        (["--data.mix.ratoi", "0.1"], "--data.mix.ratoi: toy.Policy has no parameter 'ratoi'"),
        (["--data.mix.ratio", "1.5"], "mix.ratio: 1.5 is outside [0, 1]"),
        (["--data.rows", "0"], "data.rows: 0 must be positive"),
        (["--trainer.default_root_dir", "x"], "is given as --run"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt: no such checkpoint"),
        (["--ckpt_path", "line.yaml"], "line.yaml: not a "),
        (["--ckpt_path", "plain.ckpt"], "plain.ckpt: not a checkpoint of a training run"),
    ],
)
def test_a_mistake_in_a_flag_is_named(here, capsys, flags, said):
    torch.save({"weight": torch.ones(1)}, "plain.ckpt")
    assert fit(*flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not Path("r/fit.yaml").exists()


def test_what_must_be_given_is_said(here, capsys):
    assert main(["fit", "--config", "line.yaml"]) == 2
    assert "fit: --run must be given" in capsys.readouterr().err
    assert main(["test", "--config", "line.yaml", "--run", "r"]) == 2
    assert "r/checkpoints/best.ckpt" in capsys.readouterr().err


def test_a_recipe_for_gpus_says_that_there_is_none(here, capsys, monkeypatch):
    for kind in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(kind, "is_available", lambda: False)
    assert fit("--trainer.accelerator", "gpu") == 2
    assert "add --trainer.accelerator cpu" in capsys.readouterr().err
