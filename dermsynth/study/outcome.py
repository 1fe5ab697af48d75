"""What becomes of a step's old product, of its failure and of a study that was changed, wherever the steps run."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.study.artefacts import look
from dermsynth.study.overview import Overview
from dermsynth.study.plan import Step

_OURS = "dermsynth: error: "


def move_aside(step: Step, out: Path, why: str, overview: Overview) -> None:
    """Move a product that is of other settings or inputs to `replaced/`, and say so; nothing is deleted.

    Args:
        step: that makes it again.
        out: the study's folder.
        why: what is other.
        overview: where to say it.
    """
    # Predictions in their run's folder are one file of several there.
    old = step.makes if step.command == "test" and step.makes.with_name("fit.yaml").is_file() else step.makes.parent
    number = 1
    while (new := out / "replaced" / f"{step.name.replace(' ', '-')}-{number}").exists():
        number += 1
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(old, new)
    overview.say(f"{step.name}: done again, as what is there is of another ({why}); it is now {new}")


def report_failures(failed: Mapping[str, tuple[str, Path]], not_begun: int, steps: int, overview: Overview) -> None:
    """A line for each step that failed, and an error if any did.

    Args:
        failed: why, and the log, by the step's name.
        not_begun: steps that need what these make.
        steps: of the study.
        overview: where to say it.

    Raises:
        InputError: saying how many failed.
    """
    for name, (why, log) in failed.items():
        overview.say(f"{name}: {why} (log: {log})")
    if failed:
        left = f", and {not_begun} that need what they make were not begun" if not_begun else ""
        raise InputError(
            f"{len(failed)} of {steps} steps failed{left}. Fix what the lines above say and give the same command "
            "again: it does what is left."
        )


def check_all_done(steps: Sequence[Step], elsewhere: bool = False) -> None:
    """Refuse to call a study done whose file, recipes or inputs were changed while its steps ran.

    Args:
        steps: of the study as its file says now.
        elsewhere: other machines made them, with processes of a number of their own.

    Raises:
        InputError: naming steps whose products are of what it was before.
    """
    if changed := [step.name for step in steps if look(step, elsewhere).state != "done"]:
        raise InputError(
            f"the study, or what it is made from, was changed while it ran, so that {', '.join(changed[:3])} "
            f"{'and more ' if len(changed) > 3 else ''}are of what it was before. Give the same command again."
        )


def last_error(log: Path) -> str:
    """The last line of a log in which a command of ours, or else anybody, says what went wrong; blank if none does."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    ours = [line.removeprefix(_OURS) for line in lines if line.startswith(_OURS)]
    said = ours or [line for line in lines if "error:" in line.lower()]
    return said[-1].rstrip(".") if said else ""
