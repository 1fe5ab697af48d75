"""Jobs that are stopped before they can save their place: queued again, or not, and two jobs of one run."""

import fcntl

import pytest

from tests.jobs import FIT, ROOT, dermsynth, job


@pytest.mark.parametrize(("maker", "made_again"), [("7", False), ("6", True), (None, True)])
def test_a_set_that_the_job_completed_before_it_was_stopped_is_left(tmp_path, maker, made_again):
    (tmp_path / "sets/made").mkdir(parents=True)
    (tmp_path / "sets/made/metadata.csv").touch()
    if maker:
        (tmp_path / "sets/made/.job").write_text(f"{maker}\n")
    arguments = ["configs/generate_sd15.yaml", "--run", "sets/made"]
    commands, done = job("generate.sbatch", arguments, tmp_path, SLURM_RESTART_COUNT="1")
    # Of another job's set predict says what is wrong: it may be of other settings.
    assert len(commands) == made_again
    assert done.returncode == 0
    assert ("sets/made is complete" in done.stdout) != made_again


def test_a_set_is_its_jobs_from_the_jobs_first_start(tmp_path):
    arguments = ["configs/generate_sd15.yaml", "--run", "sets/made"]
    job("generate.sbatch", arguments, tmp_path, SRUN_STATUS="143")
    assert (tmp_path / "sets/made/.job").read_text() == "7\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SRUN_STATUS": "143"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "138"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "143", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}, "scontrol requeue 5_3\n"),
        ({"SRUN_STATUS": "143", "SLURM_RESTART_COUNT": "19"}, "scontrol requeue 7\n"),
        ({"SRUN_STATUS": "143", "UNANSWERED": "1"}, "scontrol requeue 7\n"),
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
    assert ("scontrol requeue" in done.stdout) == bool(said)
    assert not done.stderr.count("error:")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SLURM_RESTART_COUNT": "20"}, "after 20 restarts and no checkpoint in a day"),
        ({"SCONTROL_STATUS": "1"}, "Slurm refuses to put job 7 back into the queue; submit it again"),
        ({"STATE": "COMPLETING"}, "Slurm itself ends job 7"),
        ({"PREEMPTED": "None"}, "Job 7 was not preempted: another of its processes failed"),
        ({"UNANSWERED": "2"}, "Slurm does not answer, so job 7 is not put back into the queue; submit it again"),
    ],
)
def test_a_job_that_is_not_queued_again_says_why(tmp_path, environment, said):
    _, done = job("fit.sbatch", FIT, tmp_path, SRUN_STATUS="143", **environment)
    assert done.returncode == 143
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: runs/x: stopped by a signal. ")
    assert said in line
    assert ("scontrol requeue" in done.stdout) == ("SCONTROL_STATUS" in environment)


def test_it_is_queued_again_as_often_as_it_makes_progress(tmp_path):
    last = tmp_path / "runs/x/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    _, done = job("fit.sbatch", FIT, tmp_path, SRUN_STATUS="143", SLURM_RESTART_COUNT="20")
    assert "scontrol requeue 7\n" in done.stdout


def test_the_test_of_an_arm_that_a_signal_kills_is_queued_again(tmp_path):
    commands, done = job("classify.sbatch", ["configs/vit_b16.yaml", "--run", "runs"], tmp_path, KILLED="test")
    assert [dermsynth(words)[0] for words in commands] == ["fit", "test"]
    assert done.returncode == 143
    assert "scontrol requeue 7\n" in done.stdout


def test_two_jobs_are_not_at_work_in_one_run(tmp_path):
    folder = tmp_path / "runs/x"
    folder.mkdir(parents=True)
    common = (ROOT / "slurm/common.sh").read_text().replace("--timeout 120", "--timeout 0.1")
    with (folder / ".job").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands, done = job("fit.sbatch", FIT, tmp_path, common)
    assert not commands
    assert done.returncode == 2
    assert "another job is at work in runs/x" in done.stderr
