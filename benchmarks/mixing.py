"""How long the order of an epoch takes for ten million records, and how much memory, against torch's sampler.

    python -m benchmarks.mixing

Each policy runs in a process of its own, on labels that lie there already: nine classes as skewed as ISIC 2019, half of
the records real and half generated where the policy takes both. The time is the processor's, of one thread; the memory
is by how much the process's peak exceeds what it held before (Linux). The last line is JSON: the slowest policy's
seconds, the largest megabytes, and how many times as long the plain alternative takes as the slowest policy.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from dermsynth.data.mixing import policies as mixing
from dermsynth.data.mixing.dealing import Indices
from dermsynth.data.mixing.policy import Policy

# Images of each class in ISIC 2019.
SKEW = np.array([12875, 4522, 3323, 2624, 867, 628, 253, 239, 10])
EPOCH = 3  # one that begins and ends within passes


def policies(count: int) -> dict[str, tuple[Policy, int, int]]:
    """Each policy, with how many real and how many generated records it gets; `count` together."""
    half = count // 2
    each = half // len(SKEW)
    return {
        "RealOnly": (mixing.RealOnly(), count, 0),
        "RealOnly balanced": (mixing.RealOnly(class_balanced=True), count, 0),
        "SyntheticOnly": (mixing.SyntheticOnly(), 0, count),
        "Ratio 0.5": (mixing.Ratio(0.5), half, half),
        "Ratio 0.3 matched": (mixing.Ratio(0.3, "matched"), half, half),
        "RatioPerClass": (mixing.RatioPerClass([0.5] * len(SKEW)), half, half),
        "CountPerClass": (mixing.CountPerClass(each), half, half),
        "FillUp matched": (mixing.FillUp(budget="matched"), half, half),
        "PerDraw 0.5": (mixing.PerDraw(0.5), half, half),
        "SyntheticFirst": (mixing.SyntheticFirst(9), half, half),
        "OversampledReal": (mixing.OversampledReal(mixing.Ratio(0.5)), half, half),
        "PriorPreservation": (mixing.PriorPreservation(), half, half),
    }


def labels(count: int) -> Indices:
    found = np.repeat(np.arange(len(SKEW)), np.diff(SKEW.cumsum() * count // SKEW.sum(), prepend=0))
    np.random.default_rng(0).shuffle(found)
    return found


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds, and megabytes from what the process held before to its peak."""
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held) / 1e6


def ours(name: str, count: int) -> tuple[int, float, float]:
    policy, real, generated = policies(count)[name]
    given = labels(real), labels(generated)
    small = np.arange(2 * len(SKEW)) % len(SKEW)
    policy.order(small, small, 0, EPOCH)  # what is set up on first use
    shown: list[Indices] = []
    seconds, megabytes = measured(lambda: shown.append(policy.order(*given, 0, EPOCH)))
    return len(shown[0]), seconds, megabytes


def plain(count: int) -> tuple[int, float, float]:
    """WeightedRandomSampler: a weight for each record, drawn in that proportion, and a list of what was drawn."""
    import torch
    from torch.utils.data import WeightedRandomSampler

    torch.set_num_threads(1)
    weights = torch.ones(count, dtype=torch.float64)
    list(WeightedRandomSampler(weights[:100], 100))
    seconds, megabytes = measured(lambda: list(WeightedRandomSampler(weights, count)))
    return count, seconds, megabytes


def say(name: str, length: int, seconds: float, megabytes: float) -> None:
    print(f"{name:22} {length:>11,} shown {seconds:6.2f} s {megabytes:5.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000)
    count = parser.parse_args().count
    spawn = multiprocessing.get_context("spawn")
    results = {}
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name in policies(count):
            results[name] = pool.submit(ours, name, count).result()
            say(name, *results[name])
        usual = pool.submit(plain, count).result()
        say("WeightedRandomSampler", *usual)
    seconds, megabytes = (max(r[n] for r in results.values()) for n in (1, 2))
    summary = {
        "count": count,
        "seconds": round(seconds, 2),
        "megabytes": round(megabytes),
        "plain_seconds": round(usual[1], 2),
        "plain_megabytes": round(usual[2]),
        "ratio": round(usual[1] / seconds, 1),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
