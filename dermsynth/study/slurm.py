"""Submits a study's steps as Slurm jobs that wait for one another, and watches them."""

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.files import make_folder, write_atomically
from dermsynth.study.artefacts import STAGES, look
from dermsynth.study.outcome import check_all_done, last_error, move_aside, report_failures
from dermsynth.study.overview import Overview
from dermsynth.study.plan import Step
from dermsynth.study.queue import ENDED, JOBS, cancel, in_queue, states, submitted

_STAGE, _TOOL = "slurm/study.sbatch", "slurm/tool.sbatch"  # what is submitted, from the project's folder
_POLL = 5.0  # seconds between two looks at the queue


def check_slurm() -> None:
    """Refuse before anything is made where no job can be submitted.

    Raises:
        InputError: there is no Slurm, or this is not the project's folder.
    """
    if not shutil.which("sbatch") or not shutil.which("squeue"):
        raise InputError("--slurm: no sbatch on this machine; it belongs to no Slurm cluster. Leave --slurm out.")
    if missing := [script for script in (_STAGE, _TOOL) if not Path(script).is_file()]:
        raise InputError(f"--slurm: no {missing[0]} in {Path.cwd()}. Give the command in the project's folder.")


@dataclass(frozen=True)
class Task:
    """Steps that one task of a job carries out, one after another: a run is fitted and then tested.

    Args:
        steps: in their order.
        needs: names of the steps, of other tasks, whose products they read.
    """

    steps: tuple[Step, ...]
    needs: frozenset[str]


@dataclass
class SlurmRunner:
    """Submits what is left of a study, unless jobs of it are in the queue, and watches it to its end.

    Args:
        steps: of the study.
        out: its folder.
        options: that every sbatch is given, such as --partition=long.
        overview: where to say how it goes.
    """

    steps: Sequence[Step]
    out: Path
    options: Sequence[str]
    overview: Overview
    _tasks: dict[str, list[str]] = field(default_factory=dict)

    def run(self) -> None:
        """Submit and watch.

        Raises:
            InputError: Slurm refuses a job, a step failed, or the study was changed meanwhile.
        """
        self._tasks = submitted(self.out)
        if waiting := in_queue(self._tasks):
            self._refuse_unknown(waiting)
            self.overview.say("jobs of this study are in the queue, so none is submitted; what they do:")
        else:
            self._submit()
            write_atomically(self.out / JOBS, json.dumps(self._tasks, indent=1) + "\n")
        self._watch()

    def _refuse_unknown(self, waiting: Sequence[str]) -> None:
        """Refuse jobs of steps that the study no longer has, such as those of an arm of another name."""
        names = {step.name for step in self.steps}
        if unknown := [name for of_task in self._tasks.values() for name in of_task if name not in names]:
            raise InputError(
                f"{self.out / JOBS}: jobs in the queue are to do `{unknown[0]}`, which this study no longer has. "
                f"Put its file back as it was, or take them out of the queue: {cancel(waiting)}"
            )

    def _submit(self) -> None:
        """Submit the steps that are not done, in arrays of those that wait for the same."""
        names = self._left()
        left = [step for step in self.steps if step.name in names]
        of_step: dict[str, str] = {}  # the task that does it, as sbatch names it
        self._tasks = {}
        make_folder(self.out / "logs")
        make_folder(self.out / "slurm")
        jobs = list(_arrays(_tasks(left)))
        for number, tasks in enumerate(jobs):
            first = tasks[0].steps[0]
            name = f"{self.out.name}-{number}-{first.command}"
            # All tasks of an array need the same; of another array they wait for those tasks alone.
            needs = dict.fromkeys(task for step, task in of_step.items() if step in tasks[0].needs)
            try:
                job = self._sbatch(name, tasks, needs)
            except InputError:
                if self._tasks:
                    subprocess.run(shlex.split(cancel(list(self._tasks))), check=False)
                raise
            for place, task in enumerate(tasks):
                done_by = [step.name for step in task.steps]
                called = f"{job}_{place}" if first.command in STAGES else job
                self._tasks[called] = done_by
                of_step |= dict.fromkeys(done_by, called)
        if jobs:
            self.overview.say(f"{len(self._tasks)} tasks in {len(jobs)} jobs are submitted: squeue --me")

    def _left(self) -> set[str]:
        """Names of the steps to be done; what they will make again is moved aside with all that was made from it."""
        left: set[str] = set()
        for step in self.steps:
            product = look(step, elsewhere=True) if not left & set(step.needs) else None
            if product and product.state == "done":
                continue
            left.add(step.name)
            if product and product.state == "other":
                move_aside(step, self.out, product.why, self.overview)
            elif product is None and step.makes.is_file():
                # What it was made from is about to change, and Slurm asks no questions in between.
                move_aside(step, self.out, "what it was made from is made again", self.overview)
        return left

    def _sbatch(self, name: str, tasks: Sequence[Task], needs: Iterable[str]) -> str:
        words = ["sbatch", "--parsable", f"--job-name={name}"]
        if waits_for := ":".join(needs):
            words += [f"--dependency=afterok:{waits_for}", "--kill-on-invalid-dep=yes"]
        if tasks[0].steps[0].command in STAGES:
            list_file = self.out / "slurm" / name
            for place, task in enumerate(tasks):
                lines = [shlex.join(_with_run(step)) for step in task.steps]
                write_atomically(list_file.with_name(f"{name}.{place}"), "\n".join(lines) + "\n")
            words += [f"--output={self.out}/logs/%x-%A_%a.out", *self.options, f"--array=0-{len(tasks) - 1}"]
            words += [_STAGE, str(list_file)]
        else:
            words += [f"--output={self.out}/logs/%x-%j.out", *self.options]
            words += [_TOOL, *tasks[0].steps[0].words]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"--slurm: sbatch refused {name}, and nothing is left submitted: {done.stderr.strip()}")
        return done.stdout.strip().partition(";")[0]  # ID;CLUSTER where there are several clusters

    def _watch(self) -> None:
        """Follow the jobs until none is left in the queue."""
        by_name = {step.name: step for step in self.steps}
        mine = {name for names in self._tasks.values() for name in names}
        done = {step.name for step in self.steps if step.name not in mine}
        for name in done:
            self.overview.found(by_name[name])
        failed: dict[str, tuple[str, Path]] = {}
        not_begun, running = 0, set[str]()
        left = dict(self._tasks)
        while left:
            found = states()
            for task, names in list(left.items()):
                state = found.get(task)
                over = state is None or state in ENDED
                if state == "RUNNING" or over:
                    # One after another, each complete when its product is there.
                    while names and by_name[names[0]].makes.is_file():
                        step = by_name[names[0]]
                        if step.name not in running:
                            self.overview.started(step, "running")
                        running.discard(step.name)
                        done.add(step.name)
                        self.overview.ended(step, "done")
                        names = left[task] = names[1:]
                if state == "RUNNING" and names and names[0] not in running:
                    running.add(names[0])
                    self.overview.started(by_name[names[0]], "running")
                if not over:
                    continue
                del left[task]
                if names:
                    log, step = self._log(task), by_name[names[0]]
                    if not log.is_file() and (state == "CANCELLED" or not done.issuperset(step.needs)):
                        not_begun += len(names)
                        continue
                    if step.name not in running:
                        self.overview.started(step, "running")
                    running.discard(step.name)
                    self.overview.ended(step, "FAILED", well=False)
                    failed[step.name] = last_error(log) or f"its job ended as {state or 'unknown'}", log
                    not_begun += len(names) - 1
            self.overview.jobs = max(1, len(running))
            self.overview.draw()
            if left:
                time.sleep(_POLL)
        report_failures(failed, not_begun, len(self.steps), self.overview)
        check_all_done(self.steps, elsewhere=True)

    def _log(self, task: str) -> Path:
        found = sorted((self.out / "logs").glob(f"*-{task}.out"))
        return found[-1] if found else self.out / "logs" / f"{task}.out"


def _tasks(steps: Sequence[Step]) -> Iterator[Task]:
    """A task a step, but for a run and its tests, which are one."""
    tests: dict[str, list[Step]] = {}
    fits = {step.name for step in steps if step.command == "fit"}
    for step in steps:
        if step.command == "test":
            # Of a run that is finished its tests are a task of their own.
            tests.setdefault(step.needs[0], []).append(step)
    for step in steps:
        if step.command == "test":
            if step.needs[0] not in fits and step is tests[step.needs[0]][0]:
                yield Task(tuple(tests[step.needs[0]]), frozenset(step.needs))
        else:
            yield Task((step, *tests.get(step.name, ())), frozenset(step.needs))


def _arrays(tasks: Iterator[Task]) -> Iterator[list[Task]]:
    """Tasks that wait for the same, of the same kind, are one array; tools are jobs of their own."""
    found: dict[tuple[object, ...], list[Task]] = {}
    for number, task in enumerate(tasks):
        commands = [step.command for step in task.steps]
        kind = commands if commands[0] in STAGES else [number]
        found.setdefault((*kind, task.needs), []).append(task)
    yield from found.values()


def _with_run(step: Step) -> list[str]:
    """A stage's words with `--run`, which a test's configuration knows and the job's script does not."""
    return [*step.words, *([] if "--run" in step.words else ["--run", str(step.makes.parent)])]
