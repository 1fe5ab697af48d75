"""The precision of training: chosen where none is given, and what an emulated one costs."""

import time
from pathlib import Path

import torch
from jsonargparse import Namespace

from dermsynth.run.config import RUN_FILE
from dermsynth.run.seams import cpu_computes
from dermsynth.run.yaml_files import read_yaml

_SIZE = 192  # of the matrix products that are timed: milliseconds where bfloat16 is emulated


def resolve(config: Namespace, stage: str) -> list[str]:
    """Fill in `trainer.precision` where it is not given: that of the run, or what this machine computes in fast.

    A resumed run keeps its precision, on whatever machine, and so do the stages that test it.

    Args:
        config: of the stage; changed in place.
        stage: fit, validate, test or predict.

    Returns:
        What the user should know, a line each.
    """
    trainer, said = config.trainer, []
    if trainer.precision is None:
        recorded = config.run / RUN_FILE
        if recorded.is_file():
            trainer.precision = _recorded(recorded)
        elif stage == "fit" and not trainer.plugins:  # which may hold a precision of their own
            trainer.precision, why = _chosen(trainer.accelerator)
            said.append(f"trainer.precision: {trainer.precision}, as {why}.")
    kind = _half(trainer.precision)
    if stage == "fit" and kind and _on_cpu(trainer.accelerator) and not cpu_computes(kind):
        said.append(
            f"warning: trainer.precision: {trainer.precision} is emulated on this CPU, a matrix product about "
            f"{_slowdown(kind):.0f} times slower. Give --trainer.precision 32-true."
        )
    return said


def _recorded(file: Path) -> str | None:
    return (read_yaml(file).get("trainer") or {}).get("precision")


def _chosen(accelerator: object) -> tuple[str, str]:
    """The precision, and why."""
    if _on_cpu(accelerator):
        if cpu_computes(torch.bfloat16):
            return "bf16-mixed", "this CPU computes in bfloat16; one that does not gets 32-true"
        return "32-true", "this CPU has no instructions for bfloat16"
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", "this GPU computes in bfloat16"
    return "32-true", "this device is not known to compute in bfloat16"


def _on_cpu(accelerator: object) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not _has_gpu())


def _has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _half(precision: object) -> torch.dtype | None:
    """The 16-bit type that Lightning computes in on a CPU; `16-mixed` becomes `bf16-mixed` there."""
    text = str(precision)
    if text.startswith("bf16") or text in ("16", "16-mixed"):
        return torch.bfloat16
    return torch.float16 if text.startswith("16") else None


def _slowdown(kind: torch.dtype) -> float:
    """How often a product in float32 is done while one in this type is."""

    def seconds(dtype: torch.dtype) -> float:
        matrix, taken = torch.ones(_SIZE, _SIZE, dtype=dtype), []
        for _ in range(4):
            began = time.perf_counter()
            matrix @ matrix
            taken.append(time.perf_counter() - began)
        return min(taken)  # the first is slow, and other processes take their turns

    return max(1.0, seconds(kind) / seconds(torch.float32))
