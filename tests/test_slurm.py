"""What the job scripts hand to srun, with one that only notes it down; a real Slurm runs them in tests/slurm."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_configs import ParsingCLI

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "a name",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_CPUS_PER_TASK": "8",
}


def job(script, arguments, folder, common=None, **environment):
    """What the script as a job gives to srun, and what it printed; a variable that is None is not there."""
    (folder / "bin").mkdir()
    (folder / "bin/srun").write_text('#!/bin/bash\nprintf "%q " "$@" >> "$SRUN_LOG"; echo >> "$SRUN_LOG"\n')
    (folder / "bin/srun").chmod(0o755)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    if common is not None:
        (folder / "slurm/common.sh").write_text(common)
    log = folder / "srun.log"
    log.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    env = kept | JOB | environment | {"PATH": f"{folder}/bin:{os.environ['PATH']}", "SRUN_LOG": str(log)}
    env = {name: value for name, value in env.items() if value is not None}
    command = ["bash", f"slurm/{script}", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return [shlex.split(line) for line in log.read_text().splitlines()], done


def dermsynth(words):
    """The arguments of dermsynth in a command of srun."""
    assert words[0] == "--kill-on-bad-exit=1"
    place = words.index("dermsynth")
    assert words[place - 2 : place] == ["python", "-m"]
    return words[place + 1 :]


@pytest.mark.parametrize(("script", "stage"), [("fit.sbatch", "fit"), ("generate.sbatch", "predict")])
def test_srun_and_the_trainer_get_the_same_layout(tmp_path, monkeypatch, script, stage):
    recipe = ["configs/dreambooth_sd15.yaml", "configs/overlays/ddp.yaml"]
    arguments = [*recipe, "--trainer.max_steps", "3", "--run=runs/my run"]
    (words,), _ = job(script, arguments, tmp_path)
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=8"} <= set(words)
    monkeypatch.chdir(ROOT)
    found = dermsynth(words)
    assert found[0] == stage
    config = ParsingCLI(found).config[stage]
    assert config.run == Path("runs/my run")
    trainer = config.trainer
    assert (trainer.num_nodes, int(trainer.devices), trainer.max_steps) == (2, 4, 3)
    assert trainer.strategy.class_path.endswith("DDPStrategy")  # of the overlay, whose devices and nodes do not count


def test_a_task_of_an_array_makes_its_shard(tmp_path, monkeypatch):
    arguments = ["configs/generate_sd15.yaml", "--data.shards", "8", "--run", "sets/made"]
    (words,), _ = job("generate.sbatch", arguments, tmp_path, SLURM_ARRAY_TASK_ID="3")
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(dermsynth(words)).config.predict
    assert str(config.run) == "sets/made-shard3"
    assert (config.data.init_args.shard, config.data.init_args.shards) == (3, 8)


def test_a_task_of_an_array_fits_and_tests_its_arm_and_seed(tmp_path, monkeypatch):
    arms = ["configs/vit_b16_baseline.yaml", "configs/vit_b16_hybrid.yaml"]
    arguments = [*arms, "--run", "runs/b16", "--data.size", "192"]
    (fit, test), _ = job("classify.sbatch", arguments, tmp_path, SLURM_ARRAY_TASK_ID="7")
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(dermsynth(fit)).config.fit
    run = "runs/b16/vit_b16_hybrid-seed3"
    assert (str(config.run), config.seed_everything) == (run, 3)
    assert config.data.init_args.mix.class_path.endswith("Ratio")
    assert config.data.init_args.size == 192
    assert dermsynth(test)[:5] == ["test", "--config", f"{run}/fit.yaml", "--ckpt_path", f"{run}/checkpoints/best.ckpt"]


def test_decoded_images_may_be_kept_on_the_nodes_own_disk(tmp_path, monkeypatch):
    common = (ROOT / "slurm/common.sh").read_text().replace("LOCAL_DISK=", "LOCAL_DISK='/scratch/a b'")
    (words,), _ = job("fit.sbatch", ["configs/vit_b16_baseline.yaml", "--run", "runs/x"], tmp_path, common)
    monkeypatch.chdir(ROOT)
    assert str(ParsingCLI(dermsynth(words)).config.fit.data.init_args.pixel_cache) == "/scratch/a b"


FIT = ["configs/dreambooth_sd15.yaml", "--run", "runs/x"]


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "said"),
    [
        ("fit.sbatch", FIT, {"SLURM_JOB_ID": None}, "no Slurm job. Submit it: sbatch"),
        ("fit.sbatch", FIT, {"SLURM_JOB_NAME": "interactive"}, "give the job another --job-name"),
        ("fit.sbatch", FIT, {"SLURM_NTASKS": "7", "SLURM_NTASKS_PER_NODE": None}, "7 tasks on 2 nodes with"),
        ("fit.sbatch", FIT, {"SLURM_NTASKS": "2"}, "2 tasks on 2 nodes with --ntasks-per-node=4"),
        ("fit.sbatch", FIT, {"SLURM_GPUS_ON_NODE": "2"}, "2 GPUs but 4 tasks a node"),
        ("fit.sbatch", FIT, {"SLURM_GPUS_PER_TASK": "1"}, "--gpus-per-node in place of --gpus-per-task"),
        ("fit.sbatch", FIT[:1], {}, "--run FOLDER must be given"),
        ("fit.sbatch", [FIT[0], "--run"], {}, "--run FOLDER must be given"),
        ("fit.sbatch", ["configs/dreambooth.yaml", *FIT[1:]], {}, "no configuration configs/dreambooth.yaml in "),
        ("generate.sbatch", FIT, {"SLURM_ARRAY_TASK_ID": "0"}, "an array needs --data.shards N"),
        ("classify.sbatch", FIT, {}, "no array. Submit with --array=0-N"),
        ("classify.sbatch", FIT[1:], {"SLURM_ARRAY_TASK_ID": "0"}, "no arms"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(tmp_path, script, arguments, environment, said):
    commands, done = job(script, arguments, tmp_path, **environment)
    assert not commands
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_say_what_a_person_must_edit(script):
    head, body = script.read_text().split("set -euo pipefail")
    options = ["partition", "account", "time", "job-name", "output=slurm-%x-", "open-mode=append", "requeue"]
    if script.stem != "compare":
        options += ["nodes", "gpus-per-node", "ntasks-per-node"]
    if script.stem in ("fit", "classify"):
        options += ["signal=USR1@"]
    for option in options:
        assert re.search(rf"^#SBATCH --{option}", head, flags=re.MULTILINE), option
    # sbatch stops reading options at the first command.
    assert "#SBATCH" not in body


PAGES = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "LightningCLI.md"))
SUBMITTED = re.findall(r"^(?:for .*?; do )?(sbatch .*?)(?:; done)?$", PAGES, flags=re.MULTILINE)
HEADS = [re.sub(r"\\\n#", "", script.read_text()) for script in SCRIPTS]
SUBMITTED += [line for head in HEADS for line in re.findall(r"^#.*?(sbatch .*)$", head, flags=re.MULTILINE)]


@pytest.mark.parametrize("line", SUBMITTED)
def test_what_the_pages_submit_parses(tmp_path, monkeypatch, line):
    # As the shell of the project's folder would have it, with the shards that are there by then.
    for shard in (0, 1):
        (tmp_path / f"sets/synthetic-shard{shard}").mkdir(parents=True)
    words = ["bash", "-c", f'lr=1e-5; printf "%s\\n" {line}']
    words = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    (place,) = [number for number, word in enumerate(words) if word.startswith("slurm/")]
    script, arguments = words[place].removeprefix("slurm/"), words[place + 1 :]
    assert (ROOT / "slurm" / script).is_file()
    array = {"SLURM_ARRAY_TASK_ID": "0"} if any(word.startswith("--array=") for word in words[:place]) else {}
    if script == "compare.sbatch":
        assert {"--baseline", "--out"} <= set(arguments)
        return
    commands, done = job(script, arguments, tmp_path, **array)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(dermsynth(commands[0])).config
    assert config[dermsynth(commands[0])[0]].run


def test_what_the_pages_submit_is_found():
    assert len(SUBMITTED) >= 13
    assert {Path(word).name for line in SUBMITTED for word in line.split() if ".sbatch" in word} == {
        s.name for s in SCRIPTS
    }


def experiment(folder, *arguments):
    for name in ("slurm", "configs"):
        (folder / name).symlink_to(ROOT / name)
    command = ["bash", "slurm/experiment.sh", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_example_is_a_chain_whose_every_stage_parses(tmp_path, monkeypatch):
    done = experiment(tmp_path, "--dry-run", "slurm/isic2020.sh", "--partition=long")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert not (tmp_path / "experiments").exists()
    names = ["prior", "dreambooth", "generate", "classify", "compare"]
    before = None
    for name, words in zip(names, lines, strict=True):
        assert words[:2] == ["sbatch", "--parsable"]
        assert {f"--job-name=isic2020-{name}", "--partition=long"} <= set(words)
        if before:
            assert {f"--dependency=afterok:{before.upper()}", "--kill-on-invalid-dep=yes"} <= set(words)
        before = name
    assert "--array=0,1,2,3,4,5,6,7" in lines[2]
    assert "--array=0-14" in lines[3]
    (tmp_path / "job").mkdir()
    place = lines[3].index("slurm/classify.sbatch")
    (fit, _), _ = job("classify.sbatch", lines[3][place + 1 :], tmp_path / "job", SLURM_ARRAY_TASK_ID="14")
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(dermsynth(fit)).config.fit
    assert str(config.run) == "experiments/isic2020/runs/vit_b16_hybrid-seed4"
    sets = [f"experiments/isic2020/synthetic-shard{shard}" for shard in range(8)]
    assert [str(folder) for folder in config.data.init_args.synthetic] == sets
    assert sum(word.startswith("experiments/isic2020/runs/") for word in lines[4]) == 15


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shards=0", "shards=0 is not a number from 1"),
        ("seeds='1 2'", "seeds=1 2 is not a number from 1"),
        ("arms=()", "arms is not given"),
        ("out=", "out is not given"),
        ("generate=(configs/none.yaml)", "no configuration configs/none.yaml"),
    ],
)
def test_a_mistake_in_an_experiment_is_told_and_nothing_is_submitted(tmp_path, line, said):
    (tmp_path / "mine.sh").write_text(f"source slurm/isic2020.sh\n{line}\n")
    done = experiment(tmp_path, "--dry-run", "mine.sh")
    assert done.returncode == 2
    assert said in done.stderr
    assert not done.stdout
