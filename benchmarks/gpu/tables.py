"""The tables of docs/performance.md."""

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.numbers import CARDS_GB
from benchmarks.gpu.parts import Part

_SPEED = ("batch", "images/s", "TFLOP/s", "share of the peak", "to the plain loop", "seconds to the first step")
_MEMORY = ("batch", "GB held", "GB reserved", *(f"fits {card} GB" for card in CARDS_GB))


def tables(parts: Sequence[Part], numbers: dict[str, Any]) -> str:
    """Two tables in Markdown: how fast each part is, and what it takes of memory."""
    rows = [(part.name, numbers["parts"][part.name]) for part in parts]
    speed = [_line(name, _why(row) or _speed(row), len(_SPEED)) for name, row in rows]
    ours = [(part.name, numbers["parts"][part.name]) for part in parts if not part.plain]
    memory = [_line(name, _memory(row), len(_MEMORY)) for name, row in ours]
    heads = _head(f"speed, {numbers['device']}", _SPEED), _head("memory of a training step or a batch", _MEMORY)
    return "\n".join([*heads[0], *speed, "", *heads[1], *memory])


def _head(first: str, names: Sequence[str]) -> list[str]:
    return [f"| {first} | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]


def _line(name: str, cells: Sequence[str], count: int) -> str:
    return f"| {' | '.join([name, *cells, *[''] * (count - len(cells))])} |"


def _why(row: dict[str, Any]) -> list[str]:
    """Why a part has no numbers; empty if it has."""
    reasons = {"failed": row.get("failed"), "left out": row.get("left_out")}
    return [f"{word}: {reason}".replace("|", "/") for word, reason in reasons.items() if reason]


def _speed(row: dict[str, Any]) -> list[str]:
    share, ratio = row["share_of_peak"], row["ratio"]
    return [
        str(row["batch_size"]),
        f"{row['images_per_second']:.3g}",
        _number(row["tflops"]),
        "unknown" if share is None else f"{share:.1%}",
        "" if ratio is None else f"{ratio:.2f} ×",
        f"{row['seconds_to_first_step']:.0f}",
    ]


def _memory(row: dict[str, Any]) -> list[str]:
    fits = [{True: "yes", False: "no", None: "unknown"}[row.get(f"fits_{card}_gb")] for card in CARDS_GB]
    if why := _why(row):
        return ["", *why, "", *fits]
    return [str(row["batch_size"]), _number(row["allocated_gb"]), _number(row["reserved_gb"]), *fits]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
