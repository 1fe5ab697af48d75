"""`python -m dermsynth audit`: what was generated, beside what real images of other patients give."""

from pathlib import Path

from dermsynth import made_from
from dermsynth.audit import copies, sheet
from dermsynth.audit.features import DEFAULT, find_extractor
from dermsynth.audit.fidelity import fidelity
from dermsynth.audit.result import AuditResult
from dermsynth.audit.seen import see
from dermsynth.audit.sides import read_sides
from dermsynth.data.sets.manifest import DATASET, METADATA
from dermsynth.errors import InputError
from dermsynth.files import make_folder
from dermsynth.report import audit_text
from dermsynth.run.config import RUN_FILE


def audit(
    out: Path,
    real: Path,
    synthetic: list[Path],
    features: str = DEFAULT,
    exclude: bool = False,
    seed: int = 0,
) -> None:
    """Audit generated images: do they look real, and is one of them somebody's photograph?

    Every number stands beside what real images of other patients give. Prints audit.txt and writes it with audit.json,
    copies.csv, a row a generated image, and copies.png, the closest pairs. That picture shows patients: keep it.

    Args:
        out: folder for the results; made if it is not there.
        real: the image set that the generator was fitted on.
        synthetic: one or more generated sets.
        features: what makes numbers of images: tiny, the autoencoder in the package; the folder of another pipeline; a
            transformers model's folder or hub id; or a classifier's run or checkpoint, for its last features.
        exclude: write the verdicts into the column `excluded` of the generated sets, so that no training is shown what
            is called a copy.
        seed: of what is drawn at random.

    Raises:
        InputError: a set or an extractor cannot be used, or `out` holds something else.
    """
    told = made_from.settings(locals(), inputs=["real", "synthetic"])
    _refuse_other(out)
    generated, originals = read_sides(synthetic, real)
    extractor = find_extractor(features)
    make_folder(out)
    made_from.write(out, "audit", None)  # what was there is no longer of this, and this is not yet there
    held_out = originals.of_split("val", "test")
    train = see(originals.of_split("train"), extractor, all_views=True)
    seen = see(generated, extractor)
    verdicts = copies.find_copies(seen, see(held_out, extractor) if len(held_out) else None, train)
    result = AuditResult(
        real=real.resolve().name,
        synthetic=tuple(folder.resolve().name for folder in synthetic),
        features=extractor.name,
        label_by=generated.label_by,
        seed=seed,
        n_train=len(train.side),
        n_held_out=len(held_out),
        n_synthetic=len(generated),
        fidelity=fidelity(train, seen, seed),
        copies=verdicts.result,
    )
    copies.write_table(verdicts, train, out)
    sheet.write_pairs(verdicts, train, out)
    result.write(out)
    print(audit_text.write(result, out), end="")
    print(f"\nWritten: {out / audit_text.TEXT}, with audit.json, {copies.TABLE} and {sheet.PICTURE}")
    if exclude:
        print(f"{copies.exclude(verdicts)} images are excluded from mixing (column excluded of metadata.csv)")
    inputs = {f"synthetic.{place}": made_from.content(folder) for place, folder in enumerate(synthetic)}
    made_from.write(out, "audit", {"settings": told, "inputs": {"real": made_from.content(real), **inputs}})


def _refuse_other(out: Path) -> None:
    for kind, names in {"a run": (RUN_FILE,), "an image set": (METADATA, DATASET)}.items():
        if any((out / name).exists() for name in names):
            raise InputError(f"--out {out}: it holds {kind}; give another folder.")
