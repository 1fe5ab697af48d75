"""The whole comparison as a chain of jobs, and what happens to it when one of its shards fails."""

import re
import shutil
import subprocess

import pytest
import yaml

from dermsynth.data import manifest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

OPTIONS = ["--partition=test", "--cpus-per-task=1", "--time=10"]
STAGES = ["prior", "dreambooth", "generate", "classify", "compare"]
OUT = "experiments/the first"
SETTINGS = f"""
out='{OUT}'
prior=(configs/generate.yaml --data.prompt 'a dermoscopic image of {{lesion}}')
dreambooth=(configs/dreambooth.yaml)
generate=(configs/generate.yaml)
shards=2
arms=(configs/baseline.yaml configs/hybrid.yaml)
seeds=2
classify=(--trainer.max_steps 3 --trainer.val_check_interval 3)
compare=(--baseline baseline)
"""
# Its DreamBooth is that of the first.
SECOND = (
    SETTINGS.replace("the first", "second")
    .replace("prior=(", "prior=() #")
    .replace("dreambooth.yaml", "dreambooth.yaml --data.synthetic '[OUT/prior]'".replace("OUT", OUT))
)


def submit(slurm, settings, *more):
    (slurm.project / "my experiment.sh").write_text(settings)
    return slurm.run("slurm/experiment.sh", "my experiment.sh", *OPTIONS, *more)


def jobs(printed):
    """Ids by stage."""
    return {stage: job for job, stage in re.findall(r"^(\d+)\t(\w+)$", printed, flags=re.MULTILINE)}


@pytest.fixture(scope="module")
def first(slurm):
    """An experiment that has come to its end, and its jobs."""
    ids = jobs(submit(slurm, SETTINGS))
    again = slurm.run("slurm/experiment.sh", "my experiment.sh", *OPTIONS, check=False)
    assert "jobs of it are in the queue" in again.stderr
    assert slurm.wait(ids["compare"], 400) == {"COMPLETED"}
    return slurm.project / OUT, ids


def test_the_chain_ends_with_a_comparison_of_all_arms_and_seeds(slurm, first):
    out, ids = first
    assert list(ids) == STAGES
    assert all(slurm.wait(job) == {"COMPLETED"} for job in ids.values())
    assert [len(slurm.states(ids[stage])) for stage in STAGES] == [1, 1, 2, 4, 1]
    text = (out / "comparison/comparison.txt").read_text()
    assert "baseline" in text
    assert "hybrid" in text
    for arm in ("baseline", "hybrid"):
        for seed in (0, 1):
            run = out / f"runs/{arm}-seed{seed}"
            assert (run / "predictions.csv").is_file()
            config = yaml.safe_load((run / "fit.yaml").read_text())
            assert config["seed_everything"] == seed
            assert config["data"]["init_args"]["synthetic"] == [f"{OUT}/synthetic-shard{n}" for n in (0, 1)]
    logs = {log.name for log in (out / "logs").iterdir()}
    assert f"the first-classify-{ids['classify']}_3.out" in logs
    assert f"the first-dreambooth-{ids['dreambooth']}.out" in logs


def test_the_shards_are_the_images_of_one_set(first):
    out, _ = first
    shards = [manifest.read(out / f"synthetic-shard{shard}") for shard in (0, 1)]
    indices = [sorted(int(record.image_id[-6:]) for record in shard.records) for shard in shards]
    assert indices == [[0, 2, 4], [1, 3, 5]]
    assert len({record.sha256 for shard in shards for record in shard.records}) == 6


def test_given_again_it_keeps_the_sets_that_are_there_if_they_are_of_these_settings(slurm, first):
    lines = slurm.run("slurm/experiment.sh", "--dry-run", "my experiment.sh").splitlines()
    named = [re.search(r"--job-name=the first-(\w+)", line)[1] for line in lines]
    assert named == ["dreambooth", "classify", "compare"]
    (slurm.project / "other.sh").write_text(SETTINGS.replace("shards=2", "shards=3"))
    other = slurm.run("slurm/experiment.sh", "--dry-run", "other.sh", check=False)
    assert other.returncode == 2
    assert "its images are made with other settings" in other.stderr


def test_a_failing_shard_stops_what_depends_on_it_and_one_command_says_why(slurm, first):
    out = slurm.project / "experiments/second"
    shutil.copytree(first[0] / "dreambooth", out / "dreambooth")
    foreign = out / "synthetic-shard1/images/holiday.png"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    printed = submit(slurm, SECOND)
    ids = jobs(printed)
    assert slurm.wait(ids["compare"]) == {"CANCELLED"}
    assert slurm.wait(ids["classify"]) == {"CANCELLED"}
    array = ids["generate"]
    slurm.wait(array)
    assert slurm.states(array) == {f"{array}_0": "COMPLETED", f"{array}_1": "FAILED"}
    (command,) = re.findall(r"^what failed: +(.*)", printed, flags=re.MULTILINE)
    why = subprocess.run(["bash", "-c", command], cwd=slurm.project, capture_output=True, text=True, check=True).stdout
    assert f"second-generate-{array}_1.out" in why
    assert "it holds images that predict did not make" in why
    # Mended, the same command makes what is missing.
    foreign.unlink()
    foreign.parent.rmdir()
    lines = slurm.run("slurm/experiment.sh", "--dry-run", "my experiment.sh").splitlines()
    assert [re.findall(r"--array=(\S+)", line) for line in lines] == [[], ["1"], ["0-3"], []]


def test_a_chain_is_submitted_whole_or_not_at_all(slurm):
    before = set(slurm.run("squeue", "--noheader", "--states=all", "--format=%F").split())
    (slurm.project / "my experiment.sh").write_text(SETTINGS.replace("the first", "third"))
    hook = "--dependency=nonsense"  # ours for all but the first stage come before it, and the last one counts
    done = slurm.run("slurm/experiment.sh", "my experiment.sh", *OPTIONS, hook, check=False)
    assert done.returncode == 2
    assert "sbatch refused prior" in done.stderr
    assert set(slurm.run("squeue", "--noheader", "--states=all", "--format=%F").split()) == before
