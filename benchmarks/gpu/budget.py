"""The parts one after the other, within the time that there is."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import sides
from benchmarks.gpu.parts import Part, Size
from benchmarks.gpu.process import alone

_LINES = 30  # of what a part printed before it failed


def run(parts: Sequence[Part], models: Path, size: Size, seconds: float, work: Path) -> dict[str, Any]:
    """Measure all parts, or as many as the time suffices for.

    Args:
        parts: in the order of their importance.
        models: folder of the configurations of a Stable Diffusion pipeline.
        size: of the models and images.
        seconds: that all may take together.
        work: folder for all that is made.

    Returns:
        `device`, `memory_gb`, and `parts`: of each what it found, or `failed` or `left_out` with a reason.

    Raises:
        RuntimeError: no models or images could be made.
    """
    end = time.monotonic() + seconds
    log = work / "prepare.log"
    made = alone(sides.prepare, (models, size, work), seconds, log)
    if "failed" in made:
        raise RuntimeError(f"models and images could not be made: {made['failed']}\n{log.read_text(encoding='utf-8')}")
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        began = time.monotonic()
        left = end - began
        if left < part.seconds:
            found[part.name] = {"left_out": f"{left:.0f} of {part.seconds:.0f} s were left"}
        else:
            log = work / f"{len(found)}.log"
            found[part.name] = alone(sides.measured, (part, size, work), min(left, 2 * part.seconds), log)
            found[part.name]["seconds"] = round(time.monotonic() - began, 1)
            if "failed" in found[part.name]:
                print("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-_LINES:]))
        print(f"{part.name}: {found[part.name]}", flush=True)
    return {**made, "parts": found}
