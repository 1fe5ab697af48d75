"""A study as jobs of a real Slurm: it ends with a comparison, is resumed, and says what failed."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml

from dermsynth.data.sets import manifest
from tests.builders import CLASSES, make_set
from tests.study.helpers import content, recipes, write_yaml

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STEPS = 100  # of a classifier; half a second each where it is slow, so that a requeue finds it at work
OPTIONS = "[--partition=test, --cpus-per-task=1, --time=10]"


class Studies:
    """The command `study FILE --slurm` in the project's folder."""

    def __init__(self, slurm):
        self.slurm = slurm

    def begin(self, file, out, *more):
        words = [sys.executable, "-m", "dermsynth", "study", file, "--out", out, "--slurm", "--sbatch", OPTIONS, *more]
        log = self.slurm.project / f"{out}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as said:
            return subprocess.Popen(words, cwd=self.slurm.project, env=self.slurm.env, stdout=said, stderr=said)

    def run(self, file, out, seconds=900):
        """Its exit status, and what this call printed."""
        log = self.slurm.project / f"{out}.log"
        before = len(log.read_text()) if log.exists() else 0
        status = self.begin(file, out).wait(seconds)
        return status, log.read_text()[before:]


@pytest.fixture(scope="module")
def studies(slurm, base):
    """The command, and a study file of two shards and two seeds, whose classifiers can be made slow."""
    folder = slurm.project
    make_set(folder / "study-real")
    recipes(folder / "study-configs", base)
    vit = folder / "study-configs/vit.yaml"
    recipe = yaml.safe_load(vit.read_text())
    recipe["trainer"].setdefault("callbacks", []).append({"class_path": "seen.Seen"})
    write_yaml(vit, recipe)
    declare(folder / "study.yaml", shards=2, generators=[0], seeds=[0, 1])
    return Studies(slurm)


def declare(file, shards, generators, seeds):
    declared = content(file.parent / "study-configs", data={"set": "study-real", "classes": list(CLASSES)})
    declared["generator"] |= {"shards": shards, "seeds": generators}
    declared["classifier"] |= {"seeds": seeds, "steps": STEPS, "flags": {"trainer.val_check_interval": STEPS // 2}}
    write_yaml(file, declared)


@pytest.fixture(scope="module")
def first(studies):
    """One that has come to its end; what it printed."""
    status, said = studies.run("study.yaml", "studies/first")
    assert status == 0, said + "".join(f.read_text() for f in (studies.slurm.project / "studies/first/logs").glob("*"))
    return said


def test_it_ends_with_the_comparison(studies, first):
    out = studies.slurm.project / "studies/first"
    assert "Comparison of 3 arms" in (out / "comparison/comparison.txt").read_text()
    assert "all 16 steps are done" in first
    # generator; two shards; real × 2 seeds; those that wait for the shards × 2 seeds; compare
    assert "10 tasks in 5 jobs are submitted" in first
    shards = [manifest.read(out / f"sets/synthetic-seed0-shard{shard}") for shard in (0, 1)]
    assert len({record.sha256 for shard in shards for record in shard.records}) == 6


def test_given_again_it_submits_nothing(studies, first):
    before = set(studies.slurm.run("squeue", "--noheader", "--states=all", "--format=%F").split())
    status, said = studies.run("study.yaml", "studies/first")
    assert status == 0, said
    assert "submitted" not in said
    assert set(studies.slurm.run("squeue", "--noheader", "--states=all", "--format=%F").split()) <= before


def test_a_failing_shard_stops_what_depends_on_it_and_nothing_else(studies, first):
    project = studies.slurm.project
    out = project / "studies/second"
    shutil.copytree(project / "studies/first/generator-seed0", out / "generator-seed0")
    fit = out / "generator-seed0/fit.yaml"
    fit.write_text(fit.read_text().replace("studies/first", "studies/second"))
    foreign = out / "sets/synthetic-seed0-shard1/images/holiday.png"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    status, said = studies.run("study.yaml", "studies/second")
    assert status == 2
    assert "synthetic-seed0-shard1: FAILED" in said
    assert "it holds images that predict did not make" in said
    assert "1 of 16 steps failed" in said
    log = re.search(r"\(log: (.*)\)", said)[1]
    assert "it holds images that predict did not make" in (project / log).read_text()
    assert all((out / f"runs/real-seed{seed}/predictions.csv").is_file() for seed in (0, 1))
    assert not (out / "comparison").exists()
    # Fixed, the same command does what is left, and that alone.
    shutil.rmtree(foreign.parents[1])
    made = (out / "sets/synthetic-seed0-shard0/metadata.csv").stat().st_mtime_ns
    status, said = studies.run("study.yaml", "studies/second")
    assert status == 0, said
    assert (out / "sets/synthetic-seed0-shard0/metadata.csv").stat().st_mtime_ns == made
    assert not (out / "replaced").exists()
    one, two = ((project / f"studies/{name}/comparison/comparison.txt").read_text() for name in ("first", "second"))
    assert one == two


def test_a_failing_generator_stops_nothing_of_another(studies):
    project = studies.slurm.project
    out = project / "studies/two"
    declare(project / "two.yaml", shards=1, generators=[0, 1], seeds=[0])
    (out / "generator-seed1").mkdir(parents=True)
    (out / "generator-seed1/hpc_ckpt_1.ckpt").touch()  # which no training begins beside
    status, said = studies.run("two.yaml", "studies/two")
    assert status == 2
    assert "generator-seed1: FAILED" in said
    # Its images, the run that is shown them with its test, and the comparison.
    assert "1 of 13 steps failed, and 4 that need what they make were not begun" in said
    for run in ("real-seed0", "repeated-seed0", "hybrid-gen0-seed0"):
        assert (out / f"runs/{run}/predictions.csv").is_file()


def test_a_requeued_training_is_resumed_while_the_study_watches(studies, first):
    project, slurm = studies.slurm.project, studies.slurm
    out = project / "studies/third"
    slow = out / "runs/real-seed0/slow"
    slow.parent.mkdir(parents=True)
    slow.touch()
    watching = studies.begin("study.yaml", "studies/third")
    job = slurm.until(lambda: _job_of(out, "fit real-seed0"), "job", 300)
    slurm.until(lambda: "is at step 1" in slurm.log(job), f"step of job {job}", 300)
    slurm.run("scontrol", "requeue", job)
    slurm.until(lambda: slurm.states(job) == {job: "PENDING"}, f"requeue of job {job}")
    slow.unlink()
    slurm.rush(job)
    # A second one shows the same jobs and submits none; the first holds the folder.
    refused = subprocess.run(
        [sys.executable, "-m", "dermsynth", "study", "study.yaml", "--out", "studies/third", "--slurm"],
        cwd=project, env=slurm.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "a study (process" in refused.stderr
    watching.kill()
    watching.wait(60)
    status, said = studies.run("study.yaml", "studies/third")
    assert status == 0, said
    one, three = ((project / f"studies/{name}/comparison/comparison.txt").read_text() for name in ("first", "third"))
    assert one == three
    (stopped,) = re.findall(r"stopped by a signal after step (\d+)", slurm.log(job))
    assert 0 < int(stopped) < STEPS
    assert set(re.findall(r"from step (\d+)", slurm.log(job))) == {"0", stopped}


def _job_of(out, step):
    file = out / "jobs.json"
    if not file.exists():
        time.sleep(0.1)
        return None
    return next(task for task, names in json.loads(file.read_text()).items() if step in names)
