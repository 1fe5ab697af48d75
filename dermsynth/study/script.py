"""A study as a shell script that does the same, one command after another."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from dermsynth.study.plan import Step

# These refuse a product that is there; all others resume it, or write it again.
_ONCE = ("phantoms", "predict")


def script(file: Path, steps: Sequence[Step], warnings: Sequence[str]) -> str:
    """The script's text.

    Args:
        file: of the study.
        steps: of it, in their order.
        warnings: what it will not be able to tell.
    """
    lines = [
        "#!/usr/bin/env bash",
        f"# What `python -m dermsynth study {shlex.quote(str(file))}` runs, in order. Run it from the same folder.",
        *(f"# warning: {warning}" for warning in warnings),
        "set -euo pipefail",
    ]
    for step in steps:
        command = f"python -m dermsynth {shlex.join(step.words)}"
        if step.command in _ONCE:
            command = f"[ -e {shlex.quote(str(step.makes))} ] || {command}"
        lines += ["", f"# {step.name}", command]
    return "\n".join(lines) + "\n"
