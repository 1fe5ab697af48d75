"""What a running study shows: a block that is rewritten in a terminal, a line an event in a log file."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from dermsynth.study.plan import Step

_WIDTH = 100
_EVERY = 1.0  # seconds between two drawings in a terminal


class Overview:
    """Counts steps and time, and says how it goes.

    Args:
        steps: of the study.
        jobs: steps side by side.
        stream: where to.
        clock: seconds.
    """

    def __init__(
        self, steps: Sequence[Step], jobs: int, stream: TextIO = sys.stdout, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._left = {step.name: step for step in steps}
        self._total, self.jobs, self._stream, self._clock = len(steps), jobs, stream, clock
        self._failed = 0
        self._running: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}
        self._began, self._drawn_at, self._lines = clock(), -_EVERY, 0
        self._live = stream.isatty()

    @property
    def done(self) -> int:
        """Steps whose product is there."""
        return self._total - len(self._left) - self._failed

    def say(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        print(text, file=self._stream, flush=True)

    def found(self, step: Step) -> None:
        """A step's product is there already."""
        self._left.pop(step.name)

    def refused(self, step: Step) -> None:
        """A step failed without a process of its own."""
        self._left.pop(step.name)
        self._failed += 1
        self.say(f"[{self._counted()}] {step.name}: FAILED")

    def started(self, step: Step, what: str) -> None:
        """A step begins or is resumed."""
        self._running[step.name] = self._clock()
        if not self._live:
            self.say(f"[{self._counted()}] {step.name}: {what}")

    def ended(self, step: Step, how: str, well: bool = True) -> None:
        """A step has ended, well or by failing."""
        took = self._clock() - self._running[step.name]
        self._left.pop(step.name)
        self._failed += not well
        if well:
            self._seconds.setdefault(step.command, []).append(took)
        self.stopped(step, how)

    def stopped(self, step: Step, how: str) -> None:
        """A step has ended; one that neither was done nor failed is still to be done."""
        took = self._clock() - self._running.pop(step.name)
        self.say(f"[{self._counted()}] {step.name}: {how} after {duration(took)}; {self.time()}")

    def time(self) -> str:
        """Time so far and to go."""
        so_far = f"{duration(self._clock() - self._began)} so far"
        seen = [step for step in self._left.values() if step.command in self._seconds]
        if not seen:
            return so_far
        how = "about" if len(seen) == len(self._left) else "at least"
        return f"{so_far}, {how} {duration(self._to_go(seen))} to go"

    def draw(self) -> None:
        """Draw the block again, in a terminal and not too often."""
        now = self._clock()
        if not self._live or now - self._drawn_at < _EVERY:
            return
        self._erase()
        self._drawn_at = now
        running = [f"  {name}  {duration(now - began)}" for name, began in self._running.items()]
        waiting = [name for name in self._left if name not in self._running]
        then = f"  then: {', '.join(waiting)}"
        lines = [f"{self._counted()}; {self.time()}", *running, *([then] if waiting else [])]
        lines = [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines]
        print("\n".join(lines), file=self._stream, flush=True)
        self._lines = len(lines)

    def _counted(self) -> str:
        return f"{self.done} of {self._total} done" + (f", {self._failed} failed" if self._failed else "")

    def _erase(self) -> None:
        if self._lines:
            self._stream.write(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0

    def _to_go(self, steps: Sequence[Step]) -> float:
        """Seconds that steps will take, from how long others of the same commands took."""
        mean = {command: sum(times) / len(times) for command, times in self._seconds.items()}
        now, seconds = self._clock(), 0.0
        for step in steps:
            seconds += max(0.0, mean[step.command] - (now - self._running.get(step.name, now)))
        return seconds / self.jobs


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
