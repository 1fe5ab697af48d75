"""What libraries say in every run and nobody can do anything about is not said."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.summary.writer import event_file_writer

from dermsynth.run import quiet

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


# Where the libraries say what is silenced.
MODULES = (
    "lightning.fabric.plugins.environments.slurm",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.callbacks.model_checkpoint",
    "lightning.pytorch.callbacks.weight_averaging",
    "lightning.pytorch.loops.fit_loop",
    "lightning.pytorch.trainer.call",
    "lightning.pytorch.trainer.connectors.callback_connector",
    "lightning.pytorch.trainer.setup",
    "lightning.pytorch.utilities.model_summary.model_summary",
    "torch.utils._pytree",
)


def texts(value):
    """All texts in the sources, with a value in the place of each that an f-string would fill in."""
    for module in MODULES:
        for node in ast.walk(ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else value for part in node.values]
                yield "".join(parts)


@pytest.fixture(scope="module")
def said():
    return [text for value in ("1", "False", "bf16-mixed") for text in texts(value)]


@pytest.mark.parametrize("pattern", quiet.WARNINGS)
def test_the_warnings_that_are_silenced_are_still_worded_so(said, pattern):
    assert any(re.match(pattern, text) for text in said)


@pytest.mark.parametrize("beginning", quiet.UNASKED)
def test_the_lines_that_are_left_out_are_still_worded_so(said, beginning):
    assert any(text.startswith(beginning) for text in said)


def test_what_else_is_left_out_is_still_called_so(said):
    assert any(quiet.ADVERTISEMENT in text for text in said)
    assert isinstance(getattr(event_file_writer, quiet.WRITER), type)
