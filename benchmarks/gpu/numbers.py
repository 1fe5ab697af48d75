"""What follows from the times: speed, share of the device's peak, ratio to the plain loop, and which GPUs suffice."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.parts import PLAIN, Part
from benchmarks.gpu.process import OUT_OF_MEMORY
from callbacks.throughput import dense_peak

# Memory of GPUs in 10⁹ bytes. What they have beyond, a twentieth, is for CUDA itself.
CARDS_GB = (24, 80)


def numbers(parts: Sequence[Part], found: dict[str, Any]) -> dict[str, Any]:
    """The last line: device, and of each part its numbers, or why there are none.

    Args:
        parts: that were asked for.
        found: by `budget.run`.
    """
    rows = {part.name: _row(part, found) for part in parts}
    return {"device": found["device"], "memory_gb": found["memory_gb"], "parts": rows}


def speed_of(result: dict[str, Any]) -> float:
    """Images a second, by the median of the laps."""
    return result["images"] / len(result["laps"]) / statistics.median(result["laps"])


def _row(part: Part, found: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = found["parts"]
    result = results[part.name]
    if "laps" not in result:
        memory = _fits(float("inf"), found["memory_gb"]) if result.get("failed") == OUT_OF_MEMORY else {}
        return {**result, **memory}
    same_work = results.get(f"{part.recipe}: {part.work_of}", {}) if part.work_of else result
    work = same_work.get("flops_per_image")
    speed = speed_of(result)
    tflops = work and speed * work / 1e12
    peak = dense_peak(found["device"])
    plain = {} if part.plain else results.get(f"{part.recipe}: {PLAIN}", {})
    return {
        "batch_size": result["batch_size"],
        "images_per_second": speed,
        "tflop_an_image": work and work / 1e12,
        "tflops": tflops,
        "share_of_peak": tflops and peak and tflops / peak,
        "ratio": speed / speed_of(plain) if "laps" in plain else None,
        "allocated_gb": result["peak_memory_gb"],
        "reserved_gb": result["reserved_gb"],
        **_fits(result["reserved_gb"], found["memory_gb"]),
        "seconds_to_first_step": result["seconds_to_first_step"],
        "seconds": result["seconds"],
    }


def _fits(reserved_gb: float | None, memory_gb: float | None) -> dict[str, bool | None]:
    """Whether it fits each card; None where this cannot be known: on a CPU, or of more memory than there is."""

    def on(card: int) -> bool | None:
        if reserved_gb is None or memory_gb is None:
            return None
        unknown = reserved_gb == float("inf") and memory_gb < card
        return None if unknown else reserved_gb <= card

    return {f"fits_{card}_gb": on(card) for card in CARDS_GB}
