"""How fast DreamBooth trains, against the loop of the usual script on the same model, images and batch.

    python -m benchmarks.dreambooth

trains a small Stable Diffusion (benchmarks/dreambooth_small.yaml) on drawn lesions, on the CPU. Any recipe can be
given instead, with flags as for `fit`; `--drawn` puts drawn lesions in the place of its sets:

    python -m benchmarks.dreambooth --config configs/dreambooth_sd15.yaml --drawn --model.base models/sd15

Both sides run in turn, in processes of their own. The last line is JSON: `ratio` to the plain loop, the median of the
rounds' `ratios` (of processor time on a CPU, by the clock on a GPU); of the medians over the rounds, images a second,
memory, TFLOP/s, and `mfu`, the share of the GPU's dense 16-bit peak; and seconds to the first step of the first round,
when nothing is cached or compiled.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks.stopwatch import Stopwatch
from callbacks.throughput import dense_peak
from dermsynth.run.configuration import read_configuration
from dermsynth.run.training_cli import run

HERE = Path(__file__).parent
SMALL = HERE / "dreambooth_small.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", help="A recipe, then overlays.")
    parser.add_argument("--drawn", action="store_true", help="Train on drawn lesions instead of the recipe's sets.")
    parser.add_argument("--steps", type=int, default=10, help="Batches that are timed in a round.")
    parser.add_argument("--warmup", type=int, default=3, help="Batches before them.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain_batch", type=int, help="Images in a step of the plain loop, if not the recipe's.")
    options, flags = parser.parse_known_args()
    sys.argv = sys.argv[:1]  # Lightning would warn that it is not given what stands there
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, flags, Path(folder))))


def measure(options: argparse.Namespace, flags: list[str], work: Path) -> dict[str, Any]:
    """All rounds of both sides; what the last line says."""
    overlay: dict[str, Any] = {"data": {"init_args": {}}, "model": {"init_args": {}}}
    configs = options.config or [SMALL]
    if not options.config:
        quietly(lambda: initialise(work / "base"))
        overlay["model"]["init_args"]["base"] = str(work / "base")
        overlay["data"]["init_args"]["latent_cache"] = str(work / "latents")
    arguments = [word for file in configs for word in ("--config", str(file))]
    config = read_configuration("fit", [*arguments, *flags, "--run", "run"])
    if options.drawn or not options.config:
        images = (options.warmup + options.steps) * config["data"]["init_args"]["batch_size"]
        quietly(lambda: draw(work / "lesions", config["data"]["init_args"]["size"], min(images, 512)))
        overlay["data"]["init_args"].update(real=str(work / "lesions" / "set"), synthetic=[], mix=None)
    overlay["trainer"] = {
        "max_steps": options.warmup + options.steps,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "logger": False,
    }
    (work / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    arguments += ["--config", str(work / "overlay.yaml"), *flags]
    config = read_configuration("fit", [*arguments, "--run", "run"])
    batch = options.plain_batch or config["data"]["init_args"]["batch_size"]

    rounds = (options.warmup, options.steps)
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "plain loop": lambda: alone(plain, config, batch, *rounds),
        "ours": lambda: alone(ours, arguments, work, [], *rounds),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(options.rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            found[name].append(sides[name]())
            print(f"round {number + 1}: {name:<12} {found[name][-1]}", flush=True)
    # In a run of its own, as the step that is counted is not compiled.
    counted = alone(ours, arguments, work, [{"class_path": "callbacks.throughput.Throughput"}], 1, 1)
    return summary(found, counted["flops_per_image"])


def summary(found: dict[str, list[dict[str, Any]]], flops_per_image: float) -> dict[str, Any]:
    """The medians and what follows from them."""

    def median(name: str, of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(result) for result in found[name])

    def ratios(of: str) -> list[float]:
        # Of each round by itself: what else a machine does changes within minutes, and then for both sides of a round.
        rounds = zip(found["plain loop"], found["ours"], strict=True)
        return [plain[of] / plain["images"] / (ours[of] / ours["images"]) for plain, ours in rounds]

    speed = {name: median(name, lambda r: r["images"] / r["wall"]) for name in found}
    device = found["ours"][0]["device"]
    counted = ratios("cpu" if device == "cpu" else "wall")
    tflops = speed["ours"] * flops_per_image / 1e12
    peak = dense_peak(device)
    numbers = {
        "ratio": statistics.median(counted),
        "wall_ratio": statistics.median(ratios("wall")),
        "images_per_second": speed["ours"],
        "plain_images_per_second": speed["plain loop"],
        "tflops": tflops,
        "mfu": tflops / peak if peak else None,
        "tflop_an_image": flops_per_image / 1e12,
        "peak_memory_gb": median("ours", lambda r: r["peak_memory_gb"]),
        "plain_peak_memory_gb": median("plain loop", lambda r: r["peak_memory_gb"]),
        "seconds_to_first_step": found["ours"][0]["seconds_to_first_step"],
        "plain_seconds_to_first_step": found["plain loop"][0]["seconds_to_first_step"],
    }
    rounded = {name: value and round(value, 4) for name, value in numbers.items()}
    return {**rounded, "ratios": [round(ratio, 2) for ratio in counted], "device": device}


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of a function in a fresh process, whose peak of memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, time.time(), *arguments).result()


def ours(
    started: float, arguments: list[str], work: Path, callbacks: list[dict[str, Any]], warmup: int, steps: int
) -> dict[str, Any]:
    """Train by the command line."""
    out = work / "found.json"
    watch = {"started": started, "warmup": warmup, "steps": steps, "out": str(out)}
    last = work / "callbacks.yaml"
    stopwatch = {"class_path": "benchmarks.stopwatch.Stopwatch", "init_args": watch}
    last.write_text(yaml.safe_dump({"trainer": {"callbacks": [*callbacks, stopwatch]}}), encoding="utf-8")
    quietly(lambda: run(["fit", *arguments, "--config", str(last), "--run", str(work / "run")]))
    return json.loads(out.read_text(encoding="utf-8"))


def plain(started: float, config: dict[str, Any], batch_size: int, warmup: int, steps: int) -> dict[str, Any]:
    """Train by the usual script's loop."""
    from benchmarks.plain_dreambooth import train

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        quietly(lambda: train(config, batch_size, Stopwatch(started, warmup, steps, out)))
        return json.loads(out.read_text(encoding="utf-8"))


def initialise(out: Path) -> None:
    """The small model, with random weights."""
    from dermsynth.tools.init import init

    init(HERE / "small_sd", out)


def draw(folder: Path, size: int, images: int) -> None:
    """An image set of drawn lesions with at least about so many to train on."""
    from dermsynth.tools.phantoms import phantoms
    from dermsynth.tools.prepare import prepare

    phantoms(folder / "source", patients=images // 6 + 8, size=size, malignant_share=0.3)
    prepare([folder / "source"], folder / "set", size=size, near_duplicates=False, processes=1)


def quietly(work: Callable[[], None]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()


if __name__ == "__main__":
    main()
