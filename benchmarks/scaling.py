"""How much faster several devices train than one, with the same batch on each.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --config configs/dreambooth_sd15.yaml --config configs/overlays/ddp.yaml --drawn

Without a recipe a small Stable Diffusion is trained on drawn lesions (benchmarks/dreambooth_small.yaml). Devices are
the GPUs of this machine, or processes of one core each; flags are those of `fit`, and `--drawn` puts drawn lesions in
the place of the recipe's sets. The last line is JSON: images a second of each number of devices, the efficiency, which
is that divided by so many times the speed of one, and `ratio`, the speed of all to that of one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.dreambooth import SMALL, draw, initialise, quietly
from dermsynth.data.sets.images import cores
from dermsynth.run.configuration import read_configuration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", help="A recipe, then overlays.")
    parser.add_argument("--drawn", action="store_true", help="Train on drawn lesions instead of the recipe's sets.")
    parser.add_argument("--devices", type=int, nargs="+", help="Numbers of them; by default 1, 2, 4, … and all.")
    parser.add_argument("--steps", type=int, default=20, help="Batches that are timed in a round.")
    parser.add_argument("--warmup", type=int, default=3, help="Batches before them.")
    parser.add_argument("--rounds", type=int, default=3)
    options, flags = parser.parse_known_args()
    sys.argv = sys.argv[:1]  # Lightning would warn that it is not given what stands there
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, flags, Path(folder))))


def measure(options: argparse.Namespace, flags: list[str], work: Path) -> dict[str, Any]:
    """All rounds; what the last line says."""
    gpus = torch.cuda.device_count()
    counts = options.devices or powers_of_two(gpus or cores())
    arguments = [word for file in options.config or [SMALL] for word in ("--config", str(file))]
    trainer = {"max_steps": options.warmup + options.steps, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    overlay: dict[str, Any] = {
        "trainer": {**trainer, "enable_checkpointing": False, "logger": False, "enable_progress_bar": False},
        "model": {"init_args": {}},
        "data": {"init_args": {}},
    }
    if not options.config:
        quietly(lambda: initialise(work / "base"))
        overlay["model"]["init_args"]["base"] = str(work / "base")
        overlay["data"]["init_args"]["latent_cache"] = str(work / "latents")
    if options.drawn or not options.config:
        config = read_configuration("fit", [*arguments, *flags, "--run", "run"])["data"]["init_args"]
        images = (options.warmup + options.steps) * config["batch_size"] * max(counts)
        quietly(lambda: draw(work / "lesions", config["size"], min(images, 512)))
        overlay["data"]["init_args"].update(real=str(work / "lesions" / "set"), synthetic=[], mix=None)
    (work / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    arguments += ["--config", str(work / "overlay.yaml"), *flags]

    speeds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(options.rounds):
        for count in counts[:: 1 if number % 2 else -1]:
            found = train(arguments, count, options.warmup, options.steps, work)
            speeds[count].append(count * found["images"] / found["wall"])
            print(f"round {number + 1}: {count:3} devices {speeds[count][-1]:10.2f} images/s", flush=True)
    medians = {count: statistics.median(values) for count, values in speeds.items()}
    one = medians[counts[0]] / counts[0]
    for count, speed in medians.items():
        print(f"median: {count:3} devices {speed:10.2f} images/s, efficiency {speed / (one * count):.0%}")
    return {
        "ratio": round(medians[counts[-1]] / one, 3),
        "images_per_second": {str(count): round(speed, 3) for count, speed in medians.items()},
        "efficiency": {str(count): round(speed / (one * count), 3) for count, speed in medians.items()},
        "device": torch.cuda.get_device_name() if gpus else f"cpu, {cores()} cores",
    }


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 and so on, and the most itself."""
    return sorted({1 << n for n in range(most.bit_length())} | {most})


def train(arguments: list[str], count: int, warmup: int, steps: int, work: Path) -> dict[str, Any]:
    """Train by the command line, in as many processes as devices; what the first one's stopwatch says."""
    out = work / "found.json"
    watch = {"started": time.time(), "warmup": warmup, "steps": steps, "out": str(out)}
    trainer: dict[str, Any] = {
        "devices": count,
        "callbacks": [{"class_path": "benchmarks.stopwatch.Stopwatch", "init_args": watch}],
    }
    if count == 1:
        trainer["strategy"] = "auto"
    elif read_configuration("fit", [*arguments, "--run", "run"])["trainer"]["strategy"] == "auto":
        trainer["strategy"] = "ddp"
    last = work / "devices.yaml"
    last.write_text(yaml.safe_dump({"trainer": trainer}), encoding="utf-8")
    command = [sys.executable, "-m", "dermsynth", "fit", *arguments, "--config", str(last), "--run", str(work / "run")]
    # A core a process, also where there is one, so that all are alike.
    environment = os.environ if torch.cuda.is_available() else {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
