"""Which steps of a study are in Slurm's queue, by jobs.json and squeue."""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.files import read_json

#: In the study's folder: which task of which job is at which steps. What is done is told by the products alone.
JOBS = "jobs.json"
# What squeue says of a job that will do no more.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


def submitted(out: Path) -> dict[str, list[str]]:
    """The names of the steps that each task last submitted for a study does; none where none was.

    Raises:
        InputError: the file that keeps them is broken.
    """
    file = out / JOBS
    return read_json(file, "Cancel the study's jobs, if it has any, and delete it.") if file.is_file() else {}


def in_queue(tasks: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of the tasks that wait or run.

    Raises:
        InputError: Slurm does not answer.
    """
    return [task for task, state in states().items() if task in tasks and state not in ENDED] if tasks else []


def states() -> dict[str, str]:
    """State of each task of the user in the queue, and of those that ended lately.

    Raises:
        InputError: Slurm does not answer.
    """
    words = ["squeue", "--noheader", "--me", "--states=all", "--array", "--format=%i|%T"]
    for attempt in (1, 2, 3):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return dict(line.split("|") for line in done.stdout.split())
        time.sleep(attempt)
    raise InputError(f"squeue fails, so nobody knows what the jobs do ({done.stderr.strip()}). Try again later.")


def cancel(tasks: Sequence[str]) -> str:
    """The command that takes the jobs of these tasks out of the queue."""
    return f"scancel {' '.join(dict.fromkeys(task.partition('_')[0] for task in tasks))}"


def refuse_beside_jobs(out: Path) -> None:
    """Keep a study from running here what jobs of it are at, whose folders it would take for left ones.

    A machine without Slurm cannot tell: results that were taken there are looked at freely.

    Raises:
        InputError: jobs of it are in the queue, or Slurm does not answer.
    """
    if shutil.which("squeue") and (tasks := in_queue(submitted(out))):
        raise InputError(
            f"--out {out}: {len(tasks)} tasks of this study are in Slurm's queue. Give --slurm to watch them, or end "
            f"them before it runs here: {cancel(tasks)}"
        )
