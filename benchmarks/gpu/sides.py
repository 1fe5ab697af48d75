"""What the processes do: make models and images, then train or generate, in our way or the plain one."""

import json
import re
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import plain_dreambooth, plain_generation, plain_vit
from benchmarks.drawn import image_set
from benchmarks.gpu.parts import Part, Size
from benchmarks.stopwatch import Stopwatch
from dermsynth.run import training_cli as training
from dermsynth.run.configuration import read_configuration
from dermsynth.tools.init import init


def prepare(models: Path, size: Size, work: Path) -> dict[str, Any]:
    """Make a base with random weights, and an image set for each kind of part that trains; say what the device is.

    Args:
        models: folder of the configurations of a Stable Diffusion pipeline.
        size: how large.
        work: folder of all that is made.
    """
    init(models, work / "base")
    for kind, timing in size.timings.items():
        if timing.images:
            image_set(work / kind, timing.images, *size.photographs)
    if not torch.cuda.is_available():
        return {"device": "cpu", "memory_gb": None}
    return {
        "device": torch.cuda.get_device_name(),
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9,
    }


def measured(part: Part, size: Size, work: Path) -> dict[str, Any]:
    """Run a part; what the stopwatch found, and the images of a batch."""
    timing = size.timings[part.kind]
    name = re.sub(r"\W+", "-", part.name)
    out, run = work / f"{name}.json", work / "runs" / name
    watch: dict[str, Any] = {
        "started": time.time(),
        "warmup": timing.warmup,
        "steps": timing.laps * timing.steps,
        "laps": timing.laps,
        "out": out,
    }
    files = [word for file in part.configs for word in ("--config", str(file))]
    flags = [*part.flags, *timing.flags]
    # What generates takes its base from a checkpoint, and here there is none.
    base = [] if part.kind == "classifier" else ["--model.base", str(work / "base")]
    recipe = read_configuration(part.stage, [*files, *base, *flags, "--run", "run"])["data"]["init_args"]
    overlay = work / f"{name}.yaml"
    overlay.write_text(yaml.safe_dump(_overlay(part, size, recipe, watch, work)), encoding="utf-8")
    arguments = [*files, "--config", str(overlay), *flags]
    if part.plain:
        _plain(part.kind, read_configuration(part.stage, [*arguments, "--run", "run"]), run, Stopwatch(**watch))
    else:
        training.run([part.stage, *arguments, "--run", str(run)])
    return {**json.loads(out.read_text(encoding="utf-8")), "batch_size": recipe["batch_size"]}


def _overlay(part: Part, size: Size, recipe: dict[str, Any], watch: dict[str, Any], work: Path) -> dict[str, Any]:
    """What `prepare` has made in the place of the recipe's own, as many batches as are timed, and the stopwatch.

    Args:
        part: to be run.
        size: of the models.
        recipe: the data's part of its configuration.
        watch: arguments of the stopwatch.
        work: where everything lies.
    """
    timing = size.timings[part.kind]
    data: dict[str, Any]
    if part.kind == "generation":
        images, classes = timing.batches * recipe["batch_size"], recipe["classes"]
        counts = {name: images // len(classes) for name in classes}
        counts[classes[0]] += images % len(classes)
        data = {"count": counts, "prompt": "a dermoscopic image of {lesion}"}  # the base was taught no token
    else:
        data = {"real": str(work / part.kind), "synthetic": [], "mix": None}
    caches = {key: str(work / key) for key in ("latent_cache", "pixel_cache") if recipe.get(key)}
    first = "image_set_writer.ImageSetWriter" if part.kind == "generation" else "throughput.Throughput"
    return {
        "trainer": {
            "max_steps": timing.batches,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_checkpointing": False,
            "logger": False,
            "callbacks": [
                {"class_path": f"callbacks.{first}"},
                {"class_path": "benchmarks.stopwatch.Stopwatch", "init_args": {**watch, "out": str(watch["out"])}},
            ],
        },
        "model": {"init_args": {"model": size.vit} if part.kind == "classifier" else {"base": str(work / "base")}},
        "data": {"init_args": {**data, **caches}},
    }


def _plain(kind: str, config: dict[str, Any], run: Path, stopwatch: Stopwatch) -> None:
    """The loop that one would write without this package, with the same model, images and batch."""
    batch_size = config["data"]["init_args"]["batch_size"]
    if kind == "generation":
        run.mkdir(parents=True)
        plain_generation.generate(config, batch_size, run, stopwatch)
    elif kind == "classifier":
        plain_vit.train(config, stopwatch)
    else:
        plain_dreambooth.train(config, batch_size, stopwatch)
