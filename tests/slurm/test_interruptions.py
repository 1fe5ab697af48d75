"""A training that Slurm interrupts ends where an uninterrupted one does, weight for weight."""

import re
import time

import pytest
import torch

from dermsynth.data.sets import manifest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STEPS = 150
LONG = ["--trainer.max_steps", STEPS, "--trainer.val_check_interval", 50]
PAIR = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1"]


@pytest.fixture(scope="module")
def whole(slurm):
    """Trainings that nothing interrupts: of two ranks, and of a task of an array. Queued before all else."""
    recipe = ["configs/baseline.yaml", *LONG]
    pair = slurm.sbatch(*PAIR, "slurm/fit.sbatch", *recipe, "--run", "runs/whole")
    task = slurm.sbatch("--array=1", "slurm/classify.sbatch", *recipe, "--run", "runs/whole-array")
    for job in (pair, task):
        assert slurm.wait(job) == {"COMPLETED"}, slurm.log(job)
    return slurm.project / "runs/whole", slurm.project / "runs/whole-array/baseline-seed1"


def mark(slurm, run, name):
    """Leave a file in a run's folder, which says what `seen.Seen` does there."""
    (slurm.project / run).mkdir(parents=True, exist_ok=True)
    (slurm.project / run / name).touch()


def begin(slurm, run, *arguments):
    """Submit a training that takes its time, and wait until it is at its steps."""
    mark(slurm, run, "slow")
    job = slurm.sbatch(*arguments)
    # Which both ranks have shared, so that both listen.
    slurm.until(lambda: "is at step 1" in slurm.log(job) + slurm.log(f"{job}_1"), f"step of job {job}")
    return job


def go_on(slurm, job, run):
    """Wait until the job was put back into the queue, and let it run to its end at once."""
    slurm.until(lambda: set(slurm.states(job).values()) == {"PENDING"}, f"requeue of job {job}")
    (slurm.project / run / "slow").unlink()
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    slurm.rush(job)
    assert slurm.wait(job) == {"COMPLETED"}


def steps(log):
    """Where it stopped and where it resumed, by the log, which holds both."""
    (stopped,) = re.findall(r"stopped by a signal after step (\d+)", log)
    return int(stopped), {int(step) for step in re.findall(r"from step (\d+)", log)}


def assert_same_weights(run, whole):
    one, other = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (run, whole))
    assert one["global_step"] == other["global_step"] == STEPS
    assert all(value.equal(other["state_dict"][name]) for name, value in one["state_dict"].items())
    moments, others = (c["optimizer_states"][0]["state"] for c in (one, other))
    assert all(moments[n][key].equal(others[n][key]) for n in others for key in ("exp_avg", "exp_avg_sq"))


def assert_same_training(run, whole):
    assert_same_weights(run, whole)
    assert len(list(run.glob("events.*"))) == len(list(whole.glob("events.*"))) + 1
    assert not list(run.rglob("hpc_ckpt*"))


def test_before_the_time_is_up_it_saves_is_queued_again_and_goes_on(slurm, whole):
    run = "runs/limited"
    fit = ["slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG, "--data.num_workers", 2]
    job = begin(slurm, run, *PAIR, "--signal=USR1@60", *fit)
    # Slurm itself now finds that less than a minute is left; it looks every half minute.
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=2")
    go_on(slurm, job, run)
    stopped, began = steps(slurm.log(job))
    assert 0 < stopped < STEPS
    assert began == {0, stopped}
    assert_same_training(slurm.project / run, whole[0])


def test_a_task_of_an_array_that_is_preempted_saves_is_queued_again_and_goes_on(slurm, whole):
    run = "runs/preempted/baseline-seed1"
    arms = ["slurm/classify.sbatch", "configs/baseline.yaml", "--run", "runs/preempted", *LONG]
    job = begin(slurm, run, "--array=1", *arms)
    urgent = preempt(slurm)
    go_on(slurm, f"{job}_1", run)
    assert slurm.wait(urgent) == {"COMPLETED"}
    stopped, began = steps(slurm.log(f"{job}_1"))
    assert 0 < stopped < STEPS
    assert began == {0, stopped}
    assert_same_training(slurm.project / run, whole[1])
    predictions = [(folder / "predictions.csv").read_text() for folder in (slurm.project / run, whole[1])]
    assert predictions[0] == predictions[1]


def preempt(slurm):
    """Take both nodes for a moment, for a job that comes before all others."""
    return slurm.sbatch("--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "true")


def held(slurm, job, processes=1):
    """Wait until a job's processes are where a mark holds them."""
    slurm.until(lambda: slurm.log(job).count("is held") == processes, f"held processes of job {job}")


def came_back(slurm, job, run):
    """Wait until a job that is not at its steps was put back into the queue, and has run to its end."""
    slurm.until(lambda: set(slurm.states(job).values()) == {"PENDING"}, f"requeue of job {job}")
    for name in ("hold-*", "slow"):
        for file in (slurm.project / run).glob(name):
            file.unlink()
    assert f"{run}: stopped by a signal before it could save its place. Job {job} goes back" in slurm.log(job)
    slurm.rush(job)
    assert slurm.wait(job) == {"COMPLETED"}, slurm.log(job)


def test_two_nodes_with_loader_processes_that_are_preempted_go_on(slurm, whole):
    run = "runs/both preempted"
    fit = ["slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG, "--data.num_workers", 2]
    job = begin(slurm, run, *PAIR, *fit)
    urgent = preempt(slurm)
    go_on(slurm, job, run)
    assert slurm.wait(urgent) == {"COMPLETED"}
    stopped, began = steps(slurm.log(job))
    assert 0 < stopped < STEPS
    assert began == {0, stopped}
    assert_same_training(slurm.project / run, whole[0])


@pytest.mark.parametrize(("how", "where"), [("preempted", "fit"), ("preempted", "train"), ("USR1", "train")])
def test_a_training_that_is_told_to_stop_while_it_starts_is_queued_again(slurm, whole, how, where):
    run = f"runs/early {how} {where}"
    mark(slurm, run, f"hold-{where}")
    job = slurm.sbatch(*PAIR, "slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG)
    held(slurm, job, 2)
    if how == "preempted":
        preempt(slurm)
    else:
        slurm.run("scancel", "--signal=USR1", job)  # to the steps alone, as --signal does
    came_back(slurm, job, run)
    assert_same_weights(slurm.project / run, whole[0])


def test_a_shard_that_is_preempted_is_queued_again_and_made_whole(slurm):
    run = "sets/preempted"
    prompt = "a dermoscopic image of {lesion}"
    flags = ["configs/generate.yaml", "--data.prompt", prompt, "--data.shards", 2, "--run", run]
    for task in (0, 1):
        mark(slurm, f"{run}-shard{task}", "hold-predict")
    job = slurm.sbatch("--array=0-1", "slurm/generate.sbatch", *flags)
    for task in (0, 1):
        held(slurm, f"{job}_{task}")
    preempt(slurm)
    for task in (0, 1):
        came_back(slurm, f"{job}_{task}", f"{run}-shard{task}")
        assert len(manifest.read(slurm.project / f"{run}-shard{task}").records) == 3


def test_a_set_that_is_preempted_while_it_is_made_is_made_again(slurm):
    run, prompt = "sets/half", "a dermoscopic image of {lesion}"
    mark(slurm, run, "slow")
    job = slurm.sbatch("slurm/generate.sbatch", "configs/generate.yaml", "--data.prompt", prompt, "--run", run)
    slurm.until(lambda: "batch 0 is generated" in slurm.log(f"{job}_0"), f"image of job {job}")
    preempt(slurm)
    came_back(slurm, f"{job}_0", run)
    assert len(manifest.read(slurm.project / run).records) == 6


def test_the_test_of_an_arm_that_is_preempted_is_queued_again(slurm, whole):
    run = "runs/tested/baseline-seed1"
    arms = ["slurm/classify.sbatch", "configs/baseline.yaml", "--run", "runs/tested", *LONG]
    mark(slurm, run, "hold-test")
    job = slurm.sbatch("--array=1", *arms)
    held(slurm, f"{job}_1")
    preempt(slurm)
    came_back(slurm, f"{job}_1", run)
    assert f"{run} is complete (150 steps" in slurm.log(f"{job}_1")
    predictions = [(folder / "predictions.csv").read_text() for folder in (slurm.project / run, whole[1])]
    assert predictions[0] == predictions[1]


def test_where_slurm_refuses_to_queue_it_again_it_says_so(slurm):
    run = "runs/refused twice"
    fit = ["slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG]
    job = begin(slurm, run, "--no-requeue", *fit)
    preempt(slurm)
    assert slurm.wait(job) == {"FAILED"}
    assert re.search(r"stopped by a signal after step \d+\. Job \d+ could not be put back", slurm.log(job))
    assert "ExitCode=75:0" in slurm.run("scontrol", "show", "job", job)
    mark(slurm, run, "hold-fit")
    job = slurm.sbatch("--no-requeue", *fit)
    held(slurm, job)
    preempt(slurm)
    assert slurm.wait(job) == {"FAILED"}
    assert f"Slurm refuses to put job {job} back into the queue; submit it again." in slurm.log(job)
    assert "ExitCode=143:0" in slurm.run("scontrol", "show", "job", job)


def test_a_job_that_is_cancelled_while_it_starts_is_not_queued_again(slurm):
    run = "runs/cancelled early"
    mark(slurm, run, "hold-fit")
    job = slurm.sbatch(*PAIR, "slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG)
    held(slurm, job, 2)
    slurm.run("scancel", job)
    assert slurm.wait(job) == {"CANCELLED"}
    time.sleep(3)
    assert set(slurm.states(job).values()) == {"CANCELLED"}
    assert "goes back into the queue" not in slurm.log(job)


def test_a_job_ends_when_one_of_its_processes_is_killed(slurm):
    run = "runs/killed"
    job = begin(slurm, run, *PAIR, "slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG)
    (slurm.project / run / "kill").touch()
    assert slurm.wait(job, 60) == {"FAILED"}
    assert "task 1: Killed" in slurm.log(job)


def test_a_job_is_not_queued_again_when_one_of_its_processes_fails_while_it_starts(slurm):
    run = "runs/broken"
    mark(slurm, run, "broken")
    job = slurm.sbatch(*PAIR, "slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG)
    slurm.until(
        lambda: slurm.log(job).count("Terminated") and slurm.states(job)[job] not in ("RUNNING", "COMPLETING"),
        f"end of job {job}",
    )
    assert "task 0: Terminated" in slurm.log(job)  # by srun, as by a preemption
    assert set(slurm.states(job).values()) == {"FAILED"}


def test_a_cancelled_training_stays_so_and_leaves_a_checkpoint(slurm, whole):
    run = "runs/cancelled"
    fit = [*PAIR, "slurm/fit.sbatch", "configs/baseline.yaml", "--run", run, *LONG]
    job = begin(slurm, run, *fit)
    slurm.run("scancel", job)
    assert slurm.wait(job) == {"CANCELLED"}
    time.sleep(3)
    assert set(slurm.states(job).values()) == {"CANCELLED"}
    (slurm.project / run / "slow").unlink()
    again = slurm.sbatch(*fit)
    assert slurm.wait(again) == {"COMPLETED"}
    stopped, _ = steps(slurm.log(job))
    assert f"resumed from {run}/checkpoints/last.ckpt, step {stopped}" in slurm.log(again)
    assert_same_training(slurm.project / run, whole[0])
