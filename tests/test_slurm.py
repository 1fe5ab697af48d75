"""What the job scripts hand to srun, what they refuse, and that what the pages submit parses."""

import re
import subprocess
from pathlib import Path

import pytest

from dermsynth.cli import COMMANDS
from dermsynth.run.configuration import read_configuration
from tests.jobs import FIT, ROOT, dermsynth, job

SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
GENERATE = ["configs/generate_sd15.yaml", "--ckpt_path", "to/come.ckpt"]


def read(words):
    """The configuration of a command that a job runs."""
    stage, *given = dermsynth(words)
    return read_configuration(stage, given)


@pytest.mark.parametrize(("script", "stage"), [("fit.sbatch", "fit"), ("generate.sbatch", "predict")])
def test_srun_and_the_trainer_get_the_same_layout(tmp_path, monkeypatch, script, stage):
    recipe = ["configs/dreambooth_sd15.yaml", "configs/overlays/ddp.yaml"]
    arguments = [*recipe, "--trainer.max_steps", "600", "--run=runs/my run"]
    (words,), _ = job(script, arguments, tmp_path)
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=8"} <= set(words)
    monkeypatch.chdir(ROOT)
    assert dermsynth(words)[0] == stage
    config = read(words)
    assert config["run"] == "runs/my run"
    trainer = config["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"]), trainer["max_steps"]) == (2, 4, 600)
    # Of the overlay, whose devices and nodes do not count.
    assert trainer["strategy"]["class_path"].endswith("DDPStrategy")


def test_a_task_of_an_array_makes_its_shard(tmp_path, monkeypatch):
    arguments = [*GENERATE, "--data.shards", "8", "--run", "sets/made"]
    (words,), _ = job("generate.sbatch", arguments, tmp_path, SLURM_ARRAY_TASK_ID="3")
    monkeypatch.chdir(ROOT)
    config = read(words)
    data = config["data"]["init_args"]
    assert (config["run"], data["shard"], data["shards"]) == ("sets/made-shard3", 3, 8)


def test_a_task_of_an_array_fits_and_tests_its_arm_and_seed(tmp_path, monkeypatch):
    arms = ["configs/arms/real.yaml", "configs/arms/hybrid.yaml"]
    arguments = ["configs/vit_b16.yaml", *arms, "--run", "runs/b16", "--data.size", "192"]
    (fit, test), _ = job("classify.sbatch", arguments, tmp_path, SLURM_ARRAY_TASK_ID="7")
    monkeypatch.chdir(ROOT)
    config = read(fit)
    run = "runs/b16/hybrid-seed3"
    assert (config["run"], config["arm"], config["seed_everything"]) == (run, "hybrid", 3)
    assert config["data"]["init_args"]["mix"]["class_path"].endswith("Ratio")
    assert config["data"]["init_args"]["size"] == 192
    assert dermsynth(test)[:5] == ["test", "--config", f"{run}/fit.yaml", "--ckpt_path", f"{run}/checkpoints/best.ckpt"]


def test_a_recipe_without_arms_is_one_arm(tmp_path, monkeypatch):
    arguments = ["configs/vit_b16.yaml", "--run", "runs"]
    (fit, _), _ = job("classify.sbatch", arguments, tmp_path, SLURM_ARRAY_TASK_ID="1")
    monkeypatch.chdir(ROOT)
    config = read(fit)
    assert (config["run"], config["arm"], config["seed_everything"]) == ("runs/vit_b16-seed1", "vit_b16", 1)


def test_without_an_array_or_shards_it_makes_one_set(tmp_path, monkeypatch):
    (words,), _ = job("generate.sbatch", [*GENERATE, "--run", "sets/made"], tmp_path)
    monkeypatch.chdir(ROOT)
    config = read(words)
    assert (config["run"], config["data"]["init_args"]["shards"]) == ("sets/made", 1)


def test_decoded_images_may_be_kept_on_the_nodes_own_disk(tmp_path, monkeypatch):
    common = (ROOT / "slurm/common.sh").read_text().replace("LOCAL_DISK=", "LOCAL_DISK='/scratch/a b'")
    (words,), _ = job("fit.sbatch", ["configs/vit_b16.yaml", "--run", "runs/x"], tmp_path, common)
    monkeypatch.chdir(ROOT)
    assert read(words)["data"]["init_args"]["pixel_cache"] == "/scratch/a b"


@pytest.mark.parametrize(
    "more", [["configs/overlays/latent_cache.yaml"], ["--data.latent_cache", "c"], ["--data.latent_cache=c"]]
)
def test_images_are_not_kept_beside_a_latent_cache_which_refuses_that(tmp_path, monkeypatch, more):
    common = (ROOT / "slurm/common.sh").read_text().replace("LOCAL_DISK=", "LOCAL_DISK=/scratch")
    arguments = ["configs/dreambooth_sd15.yaml", *more, "--run", "runs/x"]
    (words,), _ = job("fit.sbatch", arguments, tmp_path, common)
    monkeypatch.chdir(ROOT)
    data = read(words)["data"]["init_args"]
    assert data["latent_cache"] is not None
    assert data["pixel_cache"] is None


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


def test_an_old_bash_is_told_so(tmp_path):
    text = (ROOT / "slurm/common.sh").read_text()
    assert text.count(">= 404") == 1
    (tmp_path / "common.sh").write_text(text.replace(">= 404", ">= 9904"))
    done = subprocess.run(["bash", "common.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is too old; 4.4 or newer is needed." in done.stderr


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
        ("classify.sbatch", FIT[1:], {}, "no recipe"),
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
    if script.stem not in ("compare", "tool"):
        options += ["nodes", "gpus-per-node", "ntasks-per-node"]
    if script.stem in ("fit", "classify", "study"):
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
    for shard in range(12):
        (tmp_path / f"sets/synthetic-shard{shard}").mkdir(parents=True)
    words = ["bash", "-c", f'lr=1e-5; printf "%s\\n" {line}']
    words = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    (place,) = [number for number, word in enumerate(words) if word.startswith("slurm/")]
    script, arguments = words[place].removeprefix("slurm/"), words[place + 1 :]
    assert " ".join(arguments).count("sets/synthetic-shard") == (12 if "-shard" in line else 0)
    assert (ROOT / "slurm" / script).is_file()
    array = any(word.startswith("--array=") for word in words[:place])
    assert array or script != "classify.sbatch"
    if script == "compare.sbatch":
        assert {"--baseline", "--out"} <= set(arguments)
        return
    if script == "tool.sbatch":
        assert arguments[0] in COMMANDS
        return
    commands, done = job(script, arguments, tmp_path, SLURM_ARRAY_TASK_COUNT="8" if array else "1")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ROOT)
    assert read(commands[0])["run"]


def test_what_the_pages_submit_is_found():
    assert len(SUBMITTED) >= 13
    assert {Path(word).name for line in SUBMITTED for word in line.split() if ".sbatch" in word} == {
        s.name
        for s in SCRIPTS
        if s.stem != "study"  # which `study` submits
    }
