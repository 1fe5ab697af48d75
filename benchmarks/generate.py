"""How fast `predict` makes images, against diffusers' pipeline called once an image, at equal steps of one sampler.

    python -m benchmarks.generate

draws from the small base that comes with the package. Any recipe can be given instead, with flags as for `predict`:

    python -m benchmarks.generate --config configs/prior_sd15.yaml --model.base models/sd15

Both sides run in turn, in processes of their own, and write PNG files. The last line is JSON: `ratio` to the plain
loop, the median of the rounds' `ratios` (of processor time on a CPU, by the clock on a GPU), and of the medians over
the rounds what `benchmarks.dreambooth` says, `mfu` being the share of the GPU's dense 16-bit peak.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.dreambooth import alone, quietly, summary
from benchmarks.stopwatch import Stopwatch
from dermsynth.diffusion.bases import base_folder
from dermsynth.run import training_cli as training
from dermsynth.run.configuration import read_configuration

RECIPE = Path(__file__).parents[1] / "configs" / "tiny" / "prior.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", help="A recipe, then overlays.")
    parser.add_argument("--batches", type=int, default=2, help="Batches of ours that are timed, after one that is not.")
    parser.add_argument("--plain_images", type=int, default=16, help="Images of the plain loop that are.")
    parser.add_argument("--rounds", type=int, default=3)
    options, flags = parser.parse_known_args()
    sys.argv = sys.argv[:1]  # Lightning would warn that it is not given what stands there
    arguments = [word for file in options.config or [RECIPE] for word in ("--config", str(file))]
    found: dict[str, list[dict[str, Any]]] = {"plain loop": [], "ours": []}
    for number in range(options.rounds):
        for name in list(found)[:: 1 if number % 2 else -1]:
            work, count = (ours, options.batches) if name == "ours" else (plain, options.plain_images)
            found[name].append(alone(work, [*arguments, *flags], count))
            print(f"round {number + 1}: {name:<12} {found[name][-1]}", flush=True)
    print(json.dumps(summary(found, found["ours"][0]["flops_per_image"])))


def ours(started: float, arguments: list[str], batches: int) -> dict[str, Any]:
    """Generate by the command line, with the recipe's batches."""
    with tempfile.TemporaryDirectory() as folder:
        out, last = Path(folder, "found.json"), Path(folder, "last.yaml")
        data = read_configuration("predict", [*arguments, "--run", "run"])["data"]["init_args"]
        classes, images = data["classes"], (batches + 1) * data["batch_size"]
        watch = {"started": started, "warmup": 1, "steps": batches, "out": str(out)}
        overlay = {
            "trainer": {
                "enable_checkpointing": False,
                "logger": False,
                "callbacks": [
                    {"class_path": "callbacks.image_set_writer.ImageSetWriter"},
                    {"class_path": "benchmarks.stopwatch.Stopwatch", "init_args": watch},
                ],
            },
            "data": {"init_args": {"count": {name: images * (name == classes[0]) for name in classes}}},
        }
        last.write_text(yaml.safe_dump(overlay), encoding="utf-8")
        words = ["predict", *arguments, "--config", str(last), "--run", str(Path(folder, "run"))]
        quietly(lambda: training.run(words))
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def plain(started: float, arguments: list[str], images: int) -> dict[str, Any]:
    """Generate by the pipeline, an image a call."""
    from benchmarks.plain_generation import generate

    config = read_configuration("predict", [*arguments, "--run", "run"])
    if not torch.cuda.is_available():
        config["trainer"]["accelerator"] = "cpu"
    model = config["model"]["init_args"]
    model["base"] = str(base_folder(model["base"]) or model["base"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        quietly(lambda: generate(config, 1, Path(folder), Stopwatch(started, 1, images, out)))
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    main()
