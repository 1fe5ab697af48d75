"""What the progress bar says, on a model of one weight."""

import re

from dermsynth.cli import main
from tests.line import fit

BAR = ["--trainer.enable_progress_bar", "true"]


def test_training_counts_the_steps_of_the_run_and_other_stages_images(here, capsys):
    """Eight images in batches of two."""
    assert fit(*BAR, "--trainer.max_epochs", "-1", "--trainer.max_steps", "6") == 0
    said = capsys.readouterr().out
    assert "6/6" in said
    assert not re.search(r"Epoch|TPU|GPU available|Tip:", said)
    best = ["--ckpt_path", "r/checkpoints/best.ckpt"]
    assert main(["predict", "--config", "r/fit.yaml", *best, *BAR]) == 0
    assert "8/8" in capsys.readouterr().out
