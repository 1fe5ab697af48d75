"""`python -m dermsynth audit`: what was generated, beside what real images of other patients give."""

from pathlib import Path

from dermsynth import made_from
from dermsynth.data.sets.manifest import DATASET, METADATA
from dermsynth.errors import InputError
from dermsynth.run.config import RUN_FILE


def audit(
    out: Path,
    real: Path,
    synthetic: list[Path],
    features: str = "tiny",
    exclude: bool = False,
    seed: int = 0,
) -> None:
    """Audit generated images: do they look like the real thing, and is one of them somebody's photograph?

    Every number stands beside what real images of other patients give. Prints audit.txt and writes it with audit.json,
    copies.csv, a row a generated image, and copies.png, the closest pairs. That picture shows patients: keep it.

    Args:
        out: folder for the results; made if it is not there.
        real: the image set that the generator was fitted on.
        synthetic: one or more generated sets.
        features: what makes numbers of images: tiny, the autoencoder in the package; the folder of another pipeline; a
            transformers model's folder or hub id; or a classifier's run or checkpoint, for its last features.
        exclude: write into the column `excluded` of the generated sets which images are called copies, so that no
            training is shown them.
        seed: of what is drawn at random.

    Raises:
        InputError: a set or an extractor cannot be used, or `out` holds something else.
    """
    told = made_from.settings(locals(), inputs=["real", "synthetic"])
    # Not above, as `audit --help` needs none of it.
    from dermsynth.run.quiet import quieten, quieten_transformers

    quieten()
    from dermsynth.audit.questions import answer
    from dermsynth.report import audit_text

    quieten_transformers()
    _refuse_other(out)
    if out.is_dir():
        made_from.write(out, "audit", None)  # what was there is no longer of this, and this is not yet there
    result = answer(out, real, synthetic, features, exclude, seed)
    print(audit_text.write(result, out), end="")
    print(f"\nWritten: {out / audit_text.TEXT}, and audit.json, copies.csv and copies.png beside it")
    if exclude and result.copies:
        print(f"{result.copies.rows[0].copies} images are excluded from mixing (column excluded of metadata.csv)")
    inputs = {f"synthetic.{place}": made_from.content(folder) for place, folder in enumerate(synthetic)}
    made_from.write(out, "audit", {"settings": told, "inputs": {"real": made_from.content(real), **inputs}})


def _refuse_other(out: Path) -> None:
    for kind, names in {"a run": (RUN_FILE,), "an image set": (METADATA, DATASET)}.items():
        if any((out / name).exists() for name in names):
            raise InputError(f"--out {out}: it holds {kind}; give another folder.")
