"""What the job scripts hand to srun, with one that only notes it down; a real Slurm runs them in tests/slurm."""

import fcntl
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
    "SLURM_ARRAY_TASK_ID": "0",
    "SLURM_ARRAY_TASK_COUNT": "1",
}
COMMANDS = {
    "srun": """printf '%q ' "$@" >> "$SRUN_LOG"; echo >> "$SRUN_LOG"
[[ -z $KILLED || $* != *" $KILLED "* ]] || exit 143
exit ${SRUN_STATUS:-0}""",
    "squeue": 'echo "${STATE:-RUNNING}"',
    "scontrol": """[ $1 = requeue ] || { echo "PreemptEligibleTime=None PreemptTime=${PREEMPTED:-2026-11-26}"; exit; }
echo "scontrol $*"; exit ${SCONTROL_STATUS:-0}""",
}


def job(script, arguments, folder, common=None, **environment):
    """What the script as a job gives to srun, and what it printed; a variable that is None is not there."""
    (folder / "bin").mkdir()
    for name, body in COMMANDS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
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


def test_without_an_array_or_shards_it_makes_one_set(tmp_path, monkeypatch):
    (words,), _ = job("generate.sbatch", ["configs/generate_sd15.yaml", "--run", "sets/made"], tmp_path)
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(dermsynth(words)).config.predict
    assert str(config.run) == "sets/made"
    assert config.data.init_args.shards == 1


@pytest.mark.parametrize(("restarts", "made_again"), [(None, True), ("0", True), ("1", False)])
def test_a_set_that_was_complete_when_its_job_was_stopped_is_left(tmp_path, restarts, made_again):
    (tmp_path / "sets/made").mkdir(parents=True)
    (tmp_path / "sets/made/metadata.csv").touch()
    arguments = ["configs/generate_sd15.yaml", "--run", "sets/made"]
    commands, done = job("generate.sbatch", arguments, tmp_path, SLURM_RESTART_COUNT=restarts)
    # The first time predict itself refuses it: it may be another one.
    assert len(commands) == made_again
    assert done.returncode == 0
    assert ("sets/made is complete" in done.stdout) != made_again


def test_decoded_images_may_be_kept_on_the_nodes_own_disk(tmp_path, monkeypatch):
    common = (ROOT / "slurm/common.sh").read_text().replace("LOCAL_DISK=", "LOCAL_DISK='/scratch/a b'")
    (words,), _ = job("fit.sbatch", ["configs/vit_b16_baseline.yaml", "--run", "runs/x"], tmp_path, common)
    monkeypatch.chdir(ROOT)
    assert str(ParsingCLI(dermsynth(words)).config.fit.data.init_args.pixel_cache) == "/scratch/a b"


@pytest.mark.parametrize(
    "more", [["configs/overlays/latent_cache.yaml"], ["--data.latent_cache", "c"], ["--data.latent_cache=c"]]
)
def test_images_are_not_kept_beside_a_latent_cache_which_refuses_that(tmp_path, monkeypatch, more):
    common = (ROOT / "slurm/common.sh").read_text().replace("LOCAL_DISK=", "LOCAL_DISK=/scratch")
    arguments = ["configs/dreambooth_sd15.yaml", *more, "--run", "runs/x"]
    (words,), _ = job("fit.sbatch", arguments, tmp_path, common)
    monkeypatch.chdir(ROOT)
    data = ParsingCLI(dermsynth(words)).config.fit.data.init_args
    assert data.latent_cache is not None
    assert data.pixel_cache is None


FIT = ["configs/dreambooth_sd15.yaml", "--run", "runs/x"]


@pytest.mark.parametrize(
    ("environment", "nodes", "tasks"),
    [
        ({"SLURM_NTASKS": None, "SLURM_GPUS_ON_NODE": None}, 2, 8),
        ({"SLURM_NTASKS": None, "SLURM_NTASKS_PER_NODE": None, "SLURM_GPUS_ON_NODE": "1"}, 2, 2),
    ],
)
def test_tasks_follow_from_nodes_and_tasks_a_node(tmp_path, environment, nodes, tasks):
    (words,), _ = job("fit.sbatch", FIT, tmp_path, **environment)
    assert {f"--nodes={nodes}", f"--ntasks={tasks}", f"--ntasks-per-node={tasks // nodes}"} <= set(words)


def test_without_cpus_per_task_slurm_decides(tmp_path):
    (words,), _ = job("fit.sbatch", FIT, tmp_path, SLURM_CPUS_PER_TASK=None)
    assert not [word for word in words if word.startswith("--cpus")]


def test_lines_of_a_cluster_may_read_unset_variables_and_fail(tmp_path):
    place = "set +eu      #"
    common = (ROOT / "slurm/common.sh").read_text()
    assert place in common
    common = common.replace(place, f"{place} …\ntrue $UNSET; false\nexport SLURM_NTASKS=7\n#")
    _, done = job("fit.sbatch", FIT, tmp_path, common)
    assert "7 tasks on 2 nodes" in done.stderr
    # After them the script is strict again.
    other = tmp_path / "other"
    other.mkdir()
    _, done = job("fit.sbatch", FIT, other, common.replace("7\n#", "8\n#").replace("nodes=$SL", "nodes=$MISSING_SL"))
    assert done.returncode
    assert "MISSING_SLURM_JOB_NUM_NODES: unbound" in done.stderr


def test_an_environment_of_the_clusters_own(tmp_path):
    common = (ROOT / "slurm/common.sh").read_text().replace("VENV=.venv", "VENV=     ")
    commands, _ = job("fit.sbatch", FIT, tmp_path, f"cd {tmp_path}; rm -r .venv\n{common}")
    assert len(commands) == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SRUN_STATUS": "143"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "138"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "143", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}, "scontrol requeue 5_3\n"),
        ({"SRUN_STATUS": "143", "SLURM_RESTART_COUNT": "19"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "143", "SLURM_RESTART_COUNT": "20"}, "after 20 restarts and no checkpoint in a day"),
        ({"SRUN_STATUS": "143", "SCONTROL_STATUS": "1"}, "refuses to put job 7 back into the queue; submit it again"),
        ({"SRUN_STATUS": "143", "STATE": "COMPLETING"}, ""),
        ({"SRUN_STATUS": "143", "PREEMPTED": "None"}, ""),
        ({"SRUN_STATUS": "138", "PREEMPTED": "None"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "75"}, ""),
        ({"SRUN_STATUS": "1"}, ""),
        ({"SRUN_STATUS": "137"}, ""),
    ],
)
def test_a_job_that_a_signal_kills_before_it_listens_is_queued_again(tmp_path, environment, said):
    _, done = job("fit.sbatch", FIT, tmp_path, **environment)
    assert done.returncode == int(environment["SRUN_STATUS"])
    assert said in done.stdout
    assert ("scontrol requeue" in done.stdout) == ("requeue" in said or "refuses" in said)


def test_it_is_queued_again_as_often_as_it_makes_progress(tmp_path):
    last = tmp_path / "runs/x/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    _, done = job("fit.sbatch", FIT, tmp_path, SRUN_STATUS="143", SLURM_RESTART_COUNT="20")
    assert "scontrol requeue 7\n" in done.stdout


def test_the_test_of_an_arm_that_a_signal_kills_is_queued_again(tmp_path):
    commands, done = job("classify.sbatch", ["configs/vit_b16_baseline.yaml", "--run", "runs"], tmp_path, KILLED="test")
    assert [dermsynth(words)[0] for words in commands] == ["fit", "test"]
    assert done.returncode == 143
    assert "scontrol requeue 7\n" in done.stdout


def test_two_jobs_are_not_at_work_in_one_run(tmp_path):
    folder = tmp_path / "runs/x"
    folder.mkdir(parents=True)
    common = (ROOT / "slurm/common.sh").read_text().replace("--timeout 120", "--timeout 0.1")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands, done = job("fit.sbatch", FIT, tmp_path, common)
    assert not commands
    assert done.returncode == 2
    assert "another job is at work in runs/x" in done.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "said"),
    [
        ("fit.sbatch", FIT, {"SLURM_JOB_ID": None}, "no Slurm job. Submit it: sbatch"),
        ("fit.sbatch", FIT, {"SLURM_JOB_NAME": None}, "SLURM_JOB_NAME is not set"),
        ("fit.sbatch", FIT, {"SLURM_JOB_NUM_NODES": None}, "SLURM_JOB_NUM_NODES is not set"),
        ("fit.sbatch", FIT, {"SLURM_JOB_NAME": "interactive"}, "give the job another --job-name"),
        ("fit.sbatch", FIT, {"SLURM_NTASKS": "7", "SLURM_NTASKS_PER_NODE": None}, "7 tasks on 2 nodes with"),
        ("fit.sbatch", FIT, {"SLURM_NTASKS": "2"}, "2 tasks on 2 nodes with --ntasks-per-node=4"),
        ("fit.sbatch", FIT, {"SLURM_GPUS_ON_NODE": "2"}, "2 GPUs but 4 tasks a node"),
        ("fit.sbatch", FIT, {"SLURM_GPUS_PER_TASK": "1"}, "--gpus-per-node in place of --gpus-per-task"),
        ("fit.sbatch", FIT[:1], {}, "--run FOLDER must be given"),
        ("fit.sbatch", [FIT[0], "--run"], {}, "--run FOLDER must be given"),
        ("fit.sbatch", ["configs/dreambooth.yaml", *FIT[1:]], {}, "no configuration configs/dreambooth.yaml in "),
        ("generate.sbatch", FIT, {"SLURM_ARRAY_TASK_COUNT": "2"}, "an array needs --data.shards N"),
        ("classify.sbatch", FIT, {"SLURM_ARRAY_TASK_ID": None}, "no array. Submit with --array=0-N"),
        ("classify.sbatch", FIT[1:], {}, "no arms"),
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
    assert re.search(r"^##SBATCH --mem=", head, flags=re.MULTILINE)
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
    array = any(word.startswith("--array=") for word in words[:place])
    assert array or script != "classify.sbatch"
    if script == "compare.sbatch":
        assert {"--baseline", "--out"} <= set(arguments)
        return
    commands, done = job(script, arguments, tmp_path, SLURM_ARRAY_TASK_COUNT="8" if array else "1")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ROOT)
    config = ParsingCLI(dermsynth(commands[0])).config
    assert config[dermsynth(commands[0])[0]].run


def test_what_the_pages_submit_is_found():
    assert len(SUBMITTED) >= 13
    assert {Path(word).name for line in SUBMITTED for word in line.split() if ".sbatch" in word} == {
        s.name for s in SCRIPTS
    }


def experiment(folder, *arguments, **environment):
    for name in ("slurm", "configs"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    command, env = ["bash", "slurm/experiment.sh", *arguments], os.environ | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


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
        ("arms+=(configs/tiny/../vit_b16_hybrid.yaml)", "arms of one name, vit_b16_hybrid.yaml"),
        ("generate=(configs/none.yaml)", "no configuration configs/none.yaml"),
    ],
)
def test_a_mistake_in_an_experiment_is_told_and_nothing_is_submitted(tmp_path, line, said):
    (tmp_path / "mine.sh").write_text(f"source slurm/isic2020.sh\n{line}\n")
    done = experiment(tmp_path, "--dry-run", "mine.sh")
    assert done.returncode == 2
    assert said in done.stderr
    assert not done.stdout


def test_slashes_at_the_end_of_its_folder_change_nothing(tmp_path):
    (tmp_path / "mine.sh").write_text("source slurm/isic2020.sh\nout=$out//\n")
    ours = experiment(tmp_path, "--dry-run", "mine.sh").stdout
    assert "--job-name=isic2020-prior " in ours
    (tmp_path / "other").mkdir()
    assert ours == experiment(tmp_path / "other", "--dry-run", "slurm/isic2020.sh").stdout


@pytest.mark.parametrize(
    ("there", "line", "refused"),
    [
        ([], "generate=(configs/prior_sd15.yaml)", False),
        (["prior"], "dreambooth+=(--trainer.max_steps 7)", False),
        (["prior"], "prior+=(--data.count 7)", True),
        (["prior", "synthetic-shard3"], "dreambooth+=(--trainer.max_steps 7)", True),
        (["prior", "synthetic-shard3"], "seeds=7", False),
    ],
)
def test_a_set_that_is_there_must_be_of_these_settings(tmp_path, there, line, refused):
    (tmp_path / "bin").mkdir()
    for name, body in {"sbatch": "exit 1", "squeue": "true"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "mine.sh").write_text("source slurm/isic2020.sh\n")
    # Even when its submission fails half-way, the settings are written down.
    submitted = experiment(tmp_path, "mine.sh", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert "sbatch refused prior" in submitted.stderr
    for name in there:
        (tmp_path / "experiments/isic2020" / name).mkdir()
        (tmp_path / "experiments/isic2020" / name / "metadata.csv").touch()
    (tmp_path / "mine.sh").write_text(f"source slurm/isic2020.sh\n{line}\n")
    done = experiment(tmp_path, "--dry-run", "mine.sh")
    assert done.returncode == (2 if refused else 0), done.stderr
    assert ("its images are made with other settings" in done.stderr) == refused
