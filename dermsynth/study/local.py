"""Runs a study's steps on this machine, each in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from dermsynth.errors import InputError
from dermsynth.study.artefacts import look
from dermsynth.study.outcome import check_all_done, last_error, move_aside, report_failures
from dermsynth.study.overview import Overview
from dermsynth.study.plan import Step

_POLL = 0.1  # seconds between two looks at the processes
# What a training ends with that has saved its place (callbacks.preemption).
_SAVED = (75, 130)


class Process(Protocol):
    """A step at work."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def send_signal(self, number: int) -> None:
        """Tell it something."""


Launch = Callable[[Sequence[str], Path, Mapping[str, str]], Process]


def launch(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """`python -m dermsynth WORDS >> LOG`.

    In this process's group, so that Ctrl-C in a terminal, and whatever kills the group, reaches it, too.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "dermsynth", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            close_fds=False,  # they hold the study's lock
        )


@dataclass
class Runner:
    """Runs steps as what they need becomes ready.

    Args:
        steps: of the study.
        out: its folder.
        jobs: steps side by side.
        gpus: numbers of the GPUs, one of which each job has to itself; fewer than two are not dealt.
        overview: where to say how it goes.
        launch: starts a command.
        checks: what is checked once a step is done, by its name; an InputError fails it.
    """

    steps: Sequence[Step]
    out: Path
    jobs: int
    gpus: Sequence[str]
    overview: Overview
    launch: Launch = launch
    checks: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    _running: dict[str, tuple[Process, int]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _failed: dict[str, tuple[str, Path]] = field(default_factory=dict)
    _told: int = 0

    def run(self) -> None:
        """Run what is left.

        Raises:
            InputError: a step failed; the message says how many, after a line for each.
            KeyboardInterrupt: Ctrl-C, when every step has ended.
            SystemExit: SIGTERM, the same.
        """
        waiting = {step.name: step for step in self.steps}
        at_work: dict[str, Step] = {}
        with self._listening():
            while True:
                if not self._told:
                    self._start(waiting, at_work)
                if not at_work:
                    break
                self.overview.draw()
                time.sleep(_POLL)
                if self._told:
                    self._pass_on()
                for name, (process, _) in list(self._running.items()):
                    status = process.poll()
                    if status is not None:
                        del self._running[name]
                        self._end(at_work.pop(name), status)
        self._conclude(waiting)

    def _start(self, waiting: dict[str, Step], at_work: dict[str, Step]) -> None:
        """Start steps until all jobs are taken or none is ready, passing over what is done."""
        found = True
        while found:
            found = False
            for step in list(waiting.values()):
                if len(at_work) >= self.jobs or self._told:
                    return
                if not self._done.issuperset(step.needs):
                    continue
                del waiting[step.name]
                found = True
                if self._begin(step):
                    at_work[step.name] = step

    def _begin(self, step: Step) -> bool:
        """Start a step, unless its product is there; whether it runs."""
        try:
            product = look(step)
        except InputError as error:
            self.overview.refused(step)
            self._failed[step.name] = (str(error), self._log(step))
            return False
        if product.state == "done":
            if self._taken(step):
                self.overview.found(step)
            else:
                self.overview.refused(step)
            return False
        if product.state == "other":
            move_aside(step, self.out, product.why, self.overview)
        slot = min(set(range(self.jobs)) - {slot for _, slot in self._running.values()})
        environment = {}
        if self.jobs > 1 and len(self.gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        log = self._log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            print(f"$ python -m dermsynth {' '.join(step.words)}", file=file)
        self._running[step.name] = self.launch(step.words, log, environment), slot
        self.overview.started(step, "resumed" if product.state == "begun" else "running")
        return True

    def _end(self, step: Step, status: int) -> None:
        if status == 0 and step.makes.is_file():
            well = self._taken(step)
            self.overview.ended(step, "done" if well else "FAILED", well)
        elif self._told:
            self.overview.stopped(step, "stopped, its place saved" if status in _SAVED else "stopped")
        else:
            self.overview.ended(step, "FAILED", well=False)
            how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
            self._failed[step.name] = (last_error(self._log(step)) or f"it {how} and says no error", self._log(step))

    def _taken(self, step: Step) -> bool:
        """Let what needs a step begin, unless its product is refused; whether it is not."""
        try:
            if step.name in self.checks:
                self.checks[step.name]()
        except InputError as error:
            self._failed[step.name] = (str(error), self._log(step))
            return False
        self._done.add(step.name)
        return True

    def _conclude(self, waiting: Mapping[str, Step]) -> None:
        if self._told:
            self.overview.say(f"stopped after {self.overview.time()}; the same command resumes it")
            if self._told == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + self._told)
        report_failures(self._failed, len(waiting), len(self.steps), self.overview)
        check_all_done(self.steps)

    def _log(self, step: Step) -> Path:
        return self.out / "logs" / f"{step.name.replace(' ', '-')}.log"

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Note signals; the loop passes them on."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = self._told or number

    def _pass_on(self) -> None:
        """Let every step save its place and end, once.

        SIGTERM after Ctrl-C, too, which has reached them by itself in a terminal: a second one would end them at once.
        """
        for name, (process, slot) in self._running.items():
            if slot >= 0:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                self._running[name] = process, -1


def visible_gpus() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
