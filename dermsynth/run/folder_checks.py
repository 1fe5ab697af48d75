"""Files in a run's folder, or out of it, with which a stage would do something that nobody asked for."""

from pathlib import Path

from jsonargparse import Namespace

from dermsynth.errors import InputError
from dermsynth.run.config import RUN_FILE
from dermsynth.run.yaml_files import read_yaml


def check_moved(config: Namespace) -> None:
    """Refuse the run file of a folder that was renamed: results would go to the old name."""
    for file in config.config or []:
        path = Path(str(file))
        if path.name == RUN_FILE:
            recorded = read_yaml(path).get("run")
            if recorded == str(config.run) and path.resolve().parent != config.run.resolve():
                raise InputError(f"{path}: it is of the run {recorded}, which lay there. Add --run {path.parent}.")


def check_foreign(run: Path) -> None:
    """Refuse checkpoints of Lightning's own requeue: in a Slurm job it would load them, in every stage, unasked."""
    for path in sorted(run.glob("hpc_ckpt_*")):
        raise InputError(
            f"{path}: a checkpoint that Lightning's own requeue left there, which it would load in place of any other. "
            "Move it away; to begin from it, give it as --ckpt_path."
        )


def check_own(run: Path, checkpoint: Path) -> None:
    """Refuse another run's checkpoint: its predictions would stand in this run's folder."""
    if not checkpoint.resolve().is_relative_to(run.resolve()):
        raise InputError(
            f"--ckpt_path {checkpoint}: not of the run {run}, whose predictions.csv would be written. Give a "
            f"checkpoint in {run / 'checkpoints'}, or another --run."
        )
