"""What a stage says when it has ended: what was measured, and the command that usually comes next."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import SupportsFloat

from lightning import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from dermsynth.errors import InputError
from dermsynth.run.config import RUN_FILE

PROGRAM = "python -m dermsynth"


def measured(metrics: Mapping[str, SupportsFloat]) -> str:
    """One line per metric, with three digits."""
    width = max(map(len, metrics), default=0)
    return "\n".join(f"{name:<{width}}  {float(value):.3f}" for name, value in metrics.items())


def after_fit(run: Path, checkpoint: Path, model: LightningModule) -> str:
    """The test of a model that can be tested, the export of another."""
    if is_overridden("test_step", model):
        return _command("test", "--config", run / RUN_FILE, "--ckpt_path", checkpoint)
    return _command("export", checkpoint, "--out", Path("models") / run.name)


def after_test(run: Path) -> str:
    """The comparison, where the tested runs beside this one are of two or more arms; else what it needs."""
    from dermsynth.evaluation.runs import arm_of

    tested = sorted(file.parent for file in run.absolute().parent.glob("*/predictions.csv"))
    beside = [run.parent / folder.name for folder in tested]
    arms = set()
    for folder in beside:
        with suppress(InputError):  # of a run that is not this one, and that its own commands refuse
            arms.add(arm_of(folder))
        if len(arms) > 1:
            return _command("compare", *beside, "--out", "comparison")
    return f"train and test another arm, such as real and generated images; then {PROGRAM} compare takes both runs"


def _command(*words: object) -> str:
    return f"{PROGRAM} {shlex.join(map(str, words))}"
