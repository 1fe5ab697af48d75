"""The sbatch scripts hand the right commands to srun; a real Slurm runs them elsewhere."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.test_configs import ParsingCLI

ROOT = Path(__file__).parents[1]
FIT = ["--config", "configs/dreambooth_sd15.yaml", "--run", "runs/x"]


def commands(script: str, arguments: list[str], folder: Path, **environment: str) -> list[list[str]]:
    """What the script gives to srun, with the options of srun itself cut off."""
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/activate").write_text("")
    (folder / "srun").write_text('#!/bin/bash\nprintf "%q " "$@" >> "$SRUN_LOG"; echo >> "$SRUN_LOG"\n')
    (folder / "srun").chmod(0o755)
    text = (ROOT / "slurm" / script).read_text().replace("VENV=.venv", f"VENV={folder}/venv")
    slurm = {"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}
    log = folder / "srun.log"
    path = f"{folder}:{os.environ['PATH']}"
    env = {**os.environ, **slurm, **environment, "PATH": path, "SRUN_LOG": str(log)}
    subprocess.run(["bash", "-s", "--", *arguments], input=text, text=True, env=env, check=True)
    lines = [shlex.split(line) for line in log.read_text().splitlines()]
    return [line[line.index("python") :] for line in lines]


@pytest.mark.parametrize(("script", "stage"), [("fit.sbatch", "fit"), ("generate.sbatch", "predict")])
def test_one_command_with_the_jobs_nodes_and_tasks(tmp_path, monkeypatch, script, stage):
    (found,) = commands(script, [*FIT, "--trainer.max_steps", "3"], tmp_path)
    assert found[:4] == ["python", "-m", "dermsynth", stage]
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(found[3:]).config[stage]
    trainer = config.trainer
    assert (trainer.num_nodes, int(trainer.devices), trainer.max_steps) == (2, 4, 3)


def test_each_task_of_the_array_fits_and_tests_its_own_seed(tmp_path, monkeypatch):
    arguments = ["runs/vit", "--config", "configs/vit_b16_hybrid.yaml", "--data.mix.ratio", "0.25"]
    fit, test = commands("seeds.sbatch", arguments, tmp_path, SLURM_ARRAY_TASK_ID="3")
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(fit[3:]).config.fit
    assert (str(config.run), config.seed_everything) == ("runs/vit-seed3", 3)
    assert config.data.init_args.mix.init_args.ratio == 0.25
    assert test[3:8] == [
        "test",
        "--config",
        "runs/vit-seed3/fit.yaml",
        "--ckpt_path",
        "runs/vit-seed3/checkpoints/best.ckpt",
    ]


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda p: p.name)
def test_scripts_say_what_a_person_must_edit(script):
    text = script.read_text()
    head = text.split("set -euo pipefail")[0]
    for option in ("partition", "account", "time", "gres", "output", "ntasks-per-node", "open-mode=append"):
        assert re.search(rf"^#SBATCH --{option}", head, flags=re.MULTILINE), option
    # sbatch stops reading options at the first command.
    assert "#SBATCH" not in text[text.index("VENV=") :]
