"""What libraries say in every run and nobody can do anything about is not said."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_training_says_nothing_that_is_not_ours(here):
    command = [sys.executable, "-m", "dermsynth", "fit", "--config", "line.yaml", "--run", "r"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Four batches an epoch are fewer than the 50 between two entries of the log.
    assert "Seed set" not in done.stdout + done.stderr
    assert "smaller than the logging interval" not in done.stdout + done.stderr
    assert done.stdout.startswith("finished: r, best checkpoint r/checkpoints/best.ckpt\n")
