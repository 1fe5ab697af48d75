"""The job scripts among commands of Slurm that only note down what they are given; a real one is in tests/slurm."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
    # Of a job it says far more than a pipe holds.
    "scontrol": """if [ $1 = requeue ]; then echo "scontrol $*"; exit ${SCONTROL_STATUS:-0}; fi
echo asked >> "$SRUN_LOG.asked"
[ $(wc -l < "$SRUN_LOG.asked") -gt ${UNANSWERED:-0} ] || exit 1
echo "   JobState=${STATE:-RUNNING} Reason=None"
echo "   PreemptEligibleTime=None PreemptTime=${PREEMPTED:-2026-11-26} SuspendTime=None"
seq 30000""",
}
FIT = ["configs/dreambooth_sd15.yaml", "--run", "runs/x"]


def commands(folder, bodies):
    """Programs in `folder/bin`, and the PATH on which they come first."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, body in bodies.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    return f"{folder}/bin:{os.environ['PATH']}"


def job(script, arguments, folder, common=None, **environment):
    """What the script as a job gives to srun, and what it printed; a variable that is None is not there."""
    path = commands(folder, COMMANDS)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    if common is not None:
        (folder / "slurm/common.sh").write_text(common)
    log = folder / "srun.log"
    log.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    env = kept | JOB | environment | {"PATH": path, "SRUN_LOG": str(log)}
    env = {name: value for name, value in env.items() if value is not None}
    command = ["bash", f"slurm/{script}", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return [shlex.split(line) for line in log.read_text().splitlines()], done


def dermsynth(words):
    """The arguments of dermsynth in a command of srun."""
    # ALL: else the processes of a job that was submitted with --export=NONE know of no virtual environment.
    assert words[:2] == ["--kill-on-bad-exit=1", "--export=ALL"]
    place = words.index("dermsynth")
    assert words[place - 2 : place] == ["python", "-m"]
    return words[place + 1 :]
