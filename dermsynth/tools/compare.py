"""`python -m dermsynth compare`: the runs of two or more arms, on the same images, to one table."""

from pathlib import Path

from dermsynth import made_from
from dermsynth.data.sets.manifest import DATASET, METADATA
from dermsynth.errors import InputError
from dermsynth.evaluation.arms import compare_arms
from dermsynth.evaluation.metrics import Primary
from dermsynth.evaluation.runs import PREDICTIONS, inputs_of, read_arms
from dermsynth.report.folder import FILES, write
from dermsynth.run.config import RUN_FILE
from dermsynth.run.lock import COMPARE_LOCK, locked


def compare(
    runs: list[Path],
    out: Path,
    baseline: str | None = None,
    primary: Primary = "accuracy",
    margin: float | None = None,
    family: list[str] | None = None,
) -> None:
    """Compare the runs of two or more arms on the same test images: table, intervals, paired tests, plot.

    Each run folder holds the predictions.csv that `test` writes. Its fit.yaml says of which arm and seed it is (`fit
    --arm NAME`), and which generator's images it was shown; without an arm there, a folder ARM-seedN is seed N of arm
    ARM.
    Prints the table and writes comparison.txt, comparison.csv and comparison.png.

    Args:
        runs: run folders of at least two arms.
        out: folder for the results; made if it is not there.
        baseline: the arm that the others are compared with. Default: `real` or `baseline` if there is one,
            else the first arm.
        primary: the metric that the conclusion is about; choose it before the runs.
        margin: the loss in the primary metric, as a fraction such as 0.02, that would count as no harm; choose it
            before the runs. An arm does no harm by it where the 90 % interval of its difference lies above it (two
            one-sided tests at 5 %).
        family: the arms that the study was planned to compare with the baseline; p is adjusted for their number, and
            of the others nothing is concluded. Default: all.

    Raises:
        InputError: the runs cannot be compared, or `out` holds a run or an image set.
    """
    _refuse_other(out)
    told = made_from.settings(locals(), inputs=["runs"])
    comparison = compare_arms(read_arms(runs), baseline, primary, margin, family)
    with locked(out, COMPARE_LOCK, "--out"):
        made_from.write(out, "compare", None)  # what was there is no longer of this, and this is not yet there
        print(write(comparison, out), end="")
        made_from.write(out, "compare", {"settings": told, "inputs": inputs_of(runs)})
    print(f"\nWritten: {', '.join(str(out / name) for name in FILES)}")


def _refuse_other(out: Path) -> None:
    for kind, names in {"a run": (RUN_FILE, PREDICTIONS), "an image set": (METADATA, DATASET)}.items():
        if any((out / name).exists() for name in names):
            raise InputError(f"--out {out}: it holds {kind}; give another folder.")
