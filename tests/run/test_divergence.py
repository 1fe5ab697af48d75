"""A training whose loss or weights are not finite ends with one line, and leaves no checkpoint of them."""

import math
from pathlib import Path

import pytest
import torch

from dermsynth.cli import main
from dermsynth.errors import InputError
from dermsynth.run.checkpoint_io import WholeCheckpointIO
from tests.line import checkpoint, fit


def _left():
    return sorted(path.name for path in Path("r").rglob("*") if path.suffix == ".ckpt" or path.name == "finished")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        # In the first step, which is logged, validated or saved only later.
        (["--model.nan_at", "0", "--trainer.log_every_n_steps", "1"], "train/loss is nan at or before step 1."),
        (["--model.nan_at", "0"], "train/loss is nan at or before step 4."),
        (["--model.nan_at", "0", "--trainer.max_steps", "2"], "train/loss is nan at or before step 2."),
        (["--model.nan_at", "0", "--trainer.limit_val_batches", "0"], "train/loss is nan"),
        (["--model.nan_at", "0", "--trainer.logger", "false"], "train/loss is nan"),
        # Its loss is finite, the step that follows from it is not.
        (["--model.gradients", "true", "--trainer.max_steps", "1"], "2 of 2 weights are not finite"),
        (["--model.held_out", "true"], "val/loss is nan at step 0."),
    ],
)
def test_what_is_not_finite_ends_the_training(here, capsys, flags, said):
    assert fit("--model", "toy.Diverging", *flags) == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dermsynth: error:")]
    assert said in error
    assert _left() == []


def test_a_checkpoint_of_such_weights_is_not_tested(here, capsys):
    fit()
    broken = checkpoint("r/checkpoints/best.ckpt")
    broken["state_dict"]["layer.bias"].fill_(math.nan)
    torch.save(broken, "r/checkpoints/best.ckpt")
    assert main(["test", "--config", "r/fit.yaml", "--ckpt_path", "r/checkpoints/best.ckpt"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("dermsynth: error: r/checkpoints/best.ckpt: 1 of 2 weights are NaN or infinite, such as ")


def test_checkpoints_from_before_are_kept(here, capsys):
    assert fit("--model", "toy.Diverging", "--model.nan_at", "6") == 2
    assert _left() == ["best.ckpt", "last.ckpt"]
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 4
    assert fit("--model", "toy.Diverging", "--model.nan_at", "6") == 2
    assert "train/loss is nan at or before step 8" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["state_dict", "current_model_state"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_written(tmp_path, key, value):
    good = {"a": torch.zeros(2), "count": torch.tensor(3), "half": torch.zeros(2, dtype=torch.bfloat16)}
    WholeCheckpointIO().save_checkpoint({key: good}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="1 of 3 weights are not finite, such as a"):
        WholeCheckpointIO().save_checkpoint({key: {**good, "a": torch.tensor([0, value])}}, tmp_path / "b.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
