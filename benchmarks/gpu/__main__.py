"""Everything we say about speed and memory on a GPU, measured in one call of under 9 minutes.

    python -m benchmarks.gpu --models FOLDER

FOLDER holds the configurations of Stable Diffusion 1.5 (`stable-diffusion-v1-5/`); weights are random, images drawn,
and nothing is looked up in a network. Each part has a process of its own: one that fails or does not fit the memory is
a row of the tables, and so is one that the time does not suffice for. Without a GPU the same parts run with tiny
models, to see that they do.

The tables come first, those of docs/performance.md; the last line is JSON.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.budget import run
from benchmarks.gpu.numbers import numbers
from benchmarks.gpu.parts import CONFIGS, FULL, PARTS, TINY, Part
from benchmarks.gpu.tables import tables
from dermsynth.diffusion.bases import INDEX

BEGIN, END = "<!-- tables of python -m benchmarks.gpu -->", "<!-- their end -->"


def main(words: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> None:
    """Measure and print.

    Args:
        words: the command line.
        parts: what is measured.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=Path, default=os.environ.get("DERMSYNTH_MODELS"), help="By default DERMSYNTH_MODELS."
    )
    parser.add_argument("--seconds", type=float, default=520, help="That all may take; default: %(default)s.")
    parser.add_argument("--size", choices=("full", "tiny"), help="By default full where there is a GPU.")
    parser.add_argument("--out", type=Path, help="File for the tables, which are printed otherwise.")
    options = parser.parse_args(words)
    if not 0 < options.seconds < math.inf:
        parser.error(f"--seconds: {options.seconds} must be above 0.")
    if options.out and not options.out.parent.is_dir():  # now, and not when all is measured
        parser.error(f"--out: {options.out.parent} is no folder. Make it first.")
    size = options.size or ("full" if torch.cuda.is_available() else "tiny")
    if size == "full" and not torch.cuda.is_available():
        parser.error("--size full: torch sees no GPU here. Leave it out for tiny models on the CPU.")
    models = CONFIGS / "tiny" / "stable-diffusion"
    if size == "full":
        if options.models is None:
            parser.error("--models: give the folder that holds stable-diffusion-v1-5/, or set DERMSYNTH_MODELS.")
        models = options.models / "stable-diffusion-v1-5"
        if not (models / INDEX).is_file():
            parser.error(f"--models: {models} has no {INDEX}. Give the folder that holds stable-diffusion-v1-5/.")
    if words is None:
        sys.argv = sys.argv[:1]  # Lightning would warn that it is not given what stands there
    with tempfile.TemporaryDirectory() as folder:
        found = run(parts, models, FULL if size == "full" else TINY, options.seconds, Path(folder))
    result = {"size": size, **numbers(parts, found)}
    text = tables(parts, result)
    if options.out:
        options.out.write_text(f"{text}\n", encoding="utf-8")
    else:
        print(f"{BEGIN}\n{text}\n{END}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
