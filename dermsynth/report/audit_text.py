"""An audit in plain sentences. The extractor's name stands beside every number."""

from collections.abc import Sequence
from pathlib import Path

from dermsynth.audit.result import FEW, AuditResult, Fidelity, FidelityRow
from dermsynth.files import write_atomically

TEXT = "audit.txt"
LINE = 100
_NAMES = {
    "fid": "FID",
    "kid": "KID × 1000",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "irs": "IRS",
    "diversity": "diversity",
}


def write(result: AuditResult, out: Path) -> str:
    """Write audit.txt into a folder; return the text."""
    report = text(result)
    write_atomically(out / TEXT, report)
    return report


def text(result: AuditResult) -> str:
    """The audit for a terminal."""
    blocks = [_about(result)]
    if result.fidelity:
        blocks.append(_fidelity(result.fidelity, result.features))
    return "\n\n".join(blocks) + "\n"


def _about(r: AuditResult) -> str:
    return (
        f"Audit of {', '.join(r.synthetic)} ({r.n_synthetic:,} generated images) against {r.real} "
        f"({r.n_train:,} train images, {r.n_held_out:,} of val and test)."
    )


def _fidelity(fidelity: Fidelity, features: str) -> str:
    lines = [f"1. Do they look like the real ones? Measured on: {features}"]
    for name in dict.fromkeys(row.class_name for row in fidelity.rows):
        lines += _of_class([row for row in fidelity.rows if row.class_name == name])
    return "\n".join(lines)


def _of_class(rows: Sequence[FidelityRow]) -> list[str]:
    first = rows[0]
    few = f": fewer than {FEW}, so these say little" if min(first.n_real, first.n_synthetic) < FEW else ""
    lines = [f"{first.class_name or 'all'}: {first.n_synthetic:,} generated, {first.n_real:,} real{few}"]
    return lines + [f"  {_NAMES[row.measure]:<12} {row.value} {row.matched} {row.floor}" for row in rows]
