"""Two ways of doing one thing, timed in turn in one run, so that what else the machine does falls on both."""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def numbers_given(about: str | None, **defaults: int) -> argparse.Namespace:
    """The command line of a benchmark whose flags are whole numbers.

    Args:
        about: what `--help` says.
        defaults: each flag with its default.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    return parser.parse_args()


def timed(work: Callable[[], _Result]) -> tuple[_Result, float, float]:
    """What `work` returns, and wall-clock and processor seconds of this process and of those that it waited for."""
    wall, used = time.perf_counter(), busy()
    result = work()
    return result, time.perf_counter() - wall, busy() - used


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """The seconds alone."""
    return timed(work)[1:]


def peak_gb() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def in_turn(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """The median seconds of each way over the rounds, `wall` and `cpu`; the order is turned round each time."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            taken[name].append(seconds(ways[name]))
            print(
                f"round {number + 1}: {name:<28} {taken[name][-1][0]:8.2f} s, {taken[name][-1][1]:8.2f} s of processor"
            )
    return {
        name: dict(zip(("wall", "cpu"), map(statistics.median, zip(*times, strict=True)), strict=True))
        for name, times in taken.items()
    }


def report(medians: dict[str, dict[str, float]], plain: str, ours: str, images: int, **more: float) -> None:
    """Print the medians per image; the last line is JSON with `ratio`, of processor time, and `wall_ratio`.

    The processor's time is what the claim is about, "as fast a core": on an idle machine the two ratios agree, and on
    a busy one only the wall clock is disturbed.
    """
    for name, median in medians.items():
        print(f"median: {name:<28} {median['cpu'] / images * 1000:8.2f} ms of processor an image")
    ratio, wall_ratio = (medians[plain][key] / medians[ours][key] for key in ("cpu", "wall"))
    print(f"{ours} is {ratio:.1f} times as fast a core as {plain} ({wall_ratio:.1f} times by the wall clock)")
    numbers = {"ratio": ratio, "wall_ratio": wall_ratio, "images": images, **more}
    milliseconds = {name: round(median["cpu"] / images * 1000, 3) for name, median in medians.items()}
    print(json.dumps({**{k: round(v, 3) for k, v in numbers.items()}, "cpu_ms_an_image": milliseconds}))


def busy() -> float:
    """Processor seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
