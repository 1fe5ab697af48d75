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
        "[2 of 4 done] b: done after 2 min; 2 min so far, at least 2 min to go",
    ]
    overview.started(STEPS[3], "running")
    clock.now = 110
    overview.ended(STEPS[3], "done")
    # Of what is left, c, another of its command took 100 s.
    assert stream.getvalue().splitlines()[-1] == "[3 of 4 done] d: done after 10 s; 2 min so far, about 2 min to go"


def test_time_to_go_is_told_from_the_first_command_that_is_seen_and_failures_are_counted_apart():
    clock, stream = Clock(), io.StringIO()
    overview = Overview([*STEPS, step("e", "compare")], 1, stream, clock)
    overview.started(STEPS[0], "running")
    clock.now = 100
    overview.ended(STEPS[0], "done")
    overview.started(STEPS[1], "running")
    overview.ended(STEPS[1], "FAILED", well=False)
    overview.refused(STEPS[3])
    overview.started(STEPS[2], "running")
    overview.stopped(STEPS[2], "stopped")
    # What c takes is known, and what e takes is not.
    assert stream.getvalue().splitlines()[1::2] == [
        "[1 of 5 done] a: done after 2 min; 2 min so far, at least 3 min to go",
        "[1 of 5 done, 1 failed] b: FAILED after 0 s; 2 min so far, at least 2 min to go",
        "[1 of 5 done, 2 failed] c: running",
    ]
    assert stream.getvalue().splitlines()[4::2] == [
        "[1 of 5 done, 2 failed] d: FAILED",
        "[1 of 5 done, 2 failed] c: stopped after 0 s; 2 min so far, at least 2 min to go",
    ]
    assert overview.done == 1


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
    assert stream.getvalue() == f"{block}\x1b[4A\x1b[J[1 of 4 done] a: done after 7 s; 7 s so far, at least 4 s to go\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
