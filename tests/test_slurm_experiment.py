"""The chain of jobs that slurm/experiment.sh submits, and when it submits none."""

import os
import re
import shlex
import subprocess

import pytest

from callbacks.preemption import requeue
from tests.jobs import ROOT, commands, dermsynth, job
from tests.test_configs import ParsingCLI


def experiment(folder, *arguments, **bodies):
    """What `slurm/experiment.sh` does and prints, in a folder where Slurm's commands have these bodies."""
    for name in ("slurm", "configs"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    env = os.environ | {"PATH": commands(folder, bodies)}
    command = ["bash", "slurm/experiment.sh", *arguments]
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
    (tmp_path / "mine.sh").write_text("source slurm/isic2020.sh\n")
    # Even when its submission fails half-way, the settings are written down.
    submitted = experiment(tmp_path, "mine.sh", sbatch="exit 1", squeue="true")
    assert "sbatch refused prior" in submitted.stderr
    for name in there:
        (tmp_path / "experiments/isic2020" / name).mkdir()
        (tmp_path / "experiments/isic2020" / name / "metadata.csv").touch()
    (tmp_path / "mine.sh").write_text(f"source slurm/isic2020.sh\n{line}\n")
    done = experiment(tmp_path, "--dry-run", "mine.sh")
    assert done.returncode == (2 if refused else 0), done.stderr
    assert ("its images are made with other settings" in done.stderr) == refused


SBATCH = "echo sbatch >> submitted; wc -l < submitted"


@pytest.mark.parametrize(
    ("squeue", "said"),
    [
        ("seq 30000", "jobs of it are in the queue"),
        ("seq 30000; exit 1", "squeue fails, so jobs of experiments/isic2020 may be in the queue"),
        ("seq 6 30000", None),
        ("true", None),
    ],
)
def test_a_second_chain_is_not_submitted_beside_the_first(tmp_path, squeue, said):
    slurm = {"sbatch": SBATCH, "scancel": "true"}
    first = experiment(tmp_path, "slurm/isic2020.sh", squeue="true", **slurm)
    assert first.returncode == 0, first.stderr
    jobs = (tmp_path / "experiments/isic2020/jobs").read_text()
    assert jobs.startswith("1\tprior\n2\tdreambooth\n")
    again = experiment(tmp_path, "slurm/isic2020.sh", squeue=squeue, **slurm)
    assert again.returncode == (2 if said else 0)
    assert (said or "") in again.stderr
    assert len((tmp_path / "submitted").read_text().splitlines()) == (5 if said else 10)
    assert ((tmp_path / "experiments/isic2020/jobs").read_text() == jobs) == bool(said)


def test_the_command_that_says_what_failed_reads_the_logs_of_this_attempt(tmp_path, monkeypatch):
    slurm = {"sbatch": SBATCH, "squeue": "true"}
    logs = tmp_path / "experiments/isic2020/logs"
    for attempt in ("first", "second"):
        done = experiment(tmp_path, "slurm/isic2020.sh", **slurm)
        (logs / f"isic2020-prior-{attempt}.out").write_text(f"error: of the {attempt}\n")
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", "7")
        patch.setenv("PATH", "")
        reason = requeue()
    assert reason
    (logs / "isic2020-dreambooth-second.out").write_text(f"step 8\nrun: stopped. {reason}\n")
    (logs / "isic2020-compare-second.out").touch()
    (command,) = re.findall(r"^what failed: +(.*)", done.stdout, flags=re.MULTILINE)
    shown = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [
        f"experiments/isic2020/logs/isic2020-dreambooth-second.out:run: stopped. {reason}",
        "experiments/isic2020/logs/isic2020-prior-second.out:error: of the second",
    ]
    assert (logs / "earlier/isic2020-prior-first.out").read_text() == "error: of the first\n"
