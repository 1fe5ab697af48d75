"""A study as jobs of a real Slurm: it ends with a comparison, is resumed, and says what failed."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from dermsynth.data.sets import manifest
from tests.builders import CLASSES, make_set
from tests.slurm.conftest import CLUSTER
from tests.study.helpers import content, recipes, write_yaml

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

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
    """The command, and a study file of two shards and two seeds."""
    folder = slurm.project
    make_set(folder / "study-real")
    recipes(folder / "study-configs", base)
    declared = content(folder / "study-configs", data={"set": "study-real", "classes": list(CLASSES)})
    declared["generator"] |= {"shards": 2}
    declared["classifier"] |= {"seeds": [0, 1]}
    write_yaml(folder / "study.yaml", declared)
    return Studies(slurm)


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


def test_a_requeued_training_is_resumed_while_the_study_watches(studies, first):
    project, slurm = studies.slurm.project, studies.slurm
    out = project / "studies/third"
    watching = studies.begin("study.yaml", "studies/third")
    last = out / "runs/real-seed0/checkpoints/last.ckpt"
    slurm.until(last.exists, "checkpoint", 300)
    job = slurm.until(lambda: _job_of(out, "fit real-seed0"), "job")
    # Too late where it has just ended.
    slurm.run("scontrol", "requeue", job, check=False)
    slurm.run(CLUSTER, "rush", slurm.state, job, check=False)
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


def _job_of(out, step):
    file = out / "jobs.json"
    if not file.exists():
        time.sleep(0.1)
        return None
    return next(task for task, names in json.loads(file.read_text()).items() if step in names)
