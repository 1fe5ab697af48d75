"""What a running study shows."""

import io
from pathlib import Path

import pytest

from dermsynth.study.overview import Overview, duration
from dermsynth.study.plan import Step


def step(name, command="fit"):
    return Step(name, (command,), (), Path(name))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


STEPS = [step("a"), step("b"), step("c"), step("d", "test")]


def test_in_a_log_file_each_event_is_a_line():
    clock, stream = Clock(), io.StringIO()
    overview = Overview(STEPS, 1, stream, clock)
    overview.found(STEPS[0])
    overview.started(STEPS[1], "running")
    clock.now = 100
    overview.draw()
    overview.ended(STEPS[1], "done")
    assert stream.getvalue().splitlines() == [
        "[1 of 4 done] b: running",
        "[2 of 4 done] b: done after 2 min; 2 min so far",
    ]
    overview.started(STEPS[3], "running")
    clock.now = 110
    overview.ended(STEPS[3], "done")
    # Of what is left, c, another of its command took 100 s.
    assert stream.getvalue().splitlines()[-1] == "[3 of 4 done] d: done after 10 s; 2 min so far, about 2 min to go"


def test_in_a_terminal_the_block_is_drawn_over():
    clock, stream = Clock(), Terminal()
    overview = Overview(STEPS, 2, stream, clock)
    overview.started(STEPS[0], "running")
    overview.started(STEPS[1], "running")
    clock.now = 5
    overview.draw()
    block = "0 of 4 done; 5 s so far\n  a  5 s\n  b  5 s\n  then: c, d\n"
    assert stream.getvalue() == block
    overview.draw()  # not more often than once a second
    assert stream.getvalue() == block
    clock.now = 7
    overview.ended(STEPS[0], "done")
    assert stream.getvalue() == f"{block}\x1b[4A\x1b[J[1 of 4 done] a: done after 7 s; 7 s so far\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
