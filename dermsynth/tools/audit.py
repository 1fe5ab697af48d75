"""`python -m dermsynth audit`: what was generated, beside what real images of other patients give."""

from dataclasses import replace
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
    checkpoint: list[Path] | None = None,
    base: str | None = None,
    classifier: Path | None = None,
    reading_sheet: int | None = None,
    score: list[Path] | None = None,
    seed: int = 0,
) -> None:
    """Audit generated images: do they look like the real thing, is one of them somebody's photograph, and more.

    Every number stands beside what real images of other patients give. Prints audit.txt and writes it with audit.json,
    copies.csv, a row a generated image, and copies.png, the closest pairs. That picture shows patients: keep it, and a
    reading sheet, to yourself. With several checkpoints membership.png is their curve.

    Args:
        out: folder for the results; made if it is not there.
        real: the image set that the generator was fitted on.
        synthetic: one or more generated sets.
        features: what makes numbers of images: tiny, the autoencoder in the package; the folder of another pipeline; a
            transformers model's folder or hub id; or a classifier's run or checkpoint, for its last features.
        exclude: write into the column `excluded` of the generated sets which images are called copies, so that no
            training is shown them.
        checkpoint: one or more of the generator: can it be told which patients it was trained on?
        base: where their base lies now, if not where their runs say.
        classifier: run fitted on the real train images alone: do images show what their labels say?
        reading_sheet: pictures on a sheet for readers, who tell real from generated: reading.html, reading_key.csv.
        score: the files that readers saved, scored with the key in `out`; the rest of the audit there stays as it is.
        seed: of what is drawn at random.

    Raises:
        InputError: a set or an extractor cannot be used, or `out` holds something else.
    """
    told = made_from.settings(locals(), inputs=["real", "synthetic", "checkpoint", "base", "classifier", "score"])
    # Not above, as `audit --help` needs none of it.
    from dermsynth.run.quiet import quieten, quieten_transformers

    quieten()
    from dermsynth.audit import reading
    from dermsynth.audit import result as results
    from dermsynth.audit.features import best_checkpoint
    from dermsynth.audit.questions import More, answer
    from dermsynth.report import audit_text

    quieten_transformers()
    _refuse_other(out)
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more.")
    if score:
        result = replace(results.read(out), readings=reading.score(score, out / reading.KEY))
        result.write(out)
        print(audit_text.write(result, out), end="")
        return
    if out.is_dir():
        made_from.write(out, "audit", None)  # what was there is no longer of this, and this is not yet there
    more = More(checkpoint or (), base, classifier, reading_sheet)
    result = answer(out, real, synthetic, features, exclude, seed, more)
    print(audit_text.write(result, out), end="")
    print(f"\nWritten: {out / audit_text.TEXT}, and audit.json, copies.csv and copies.png beside it")
    if exclude and result.copies:
        print(f"{result.copies.rows[0].copies} images are excluded from mixing (column excluded of metadata.csv)")
    if reading_sheet is not None:
        print(f"For readers: {out / reading.SHEET}. Not for them: {out / reading.KEY}, by which --score counts.")
    files = {"real": real, **{f"synthetic.{place}": folder for place, folder in enumerate(synthetic)}}
    files |= {f"checkpoint.{place}": file for place, file in enumerate(checkpoint or ())}
    files |= {"base": Path(base)} if base else {}
    files |= {"classifier": best_checkpoint(classifier)} if classifier else {}
    inputs = {name: made_from.content(file) for name, file in files.items()}
    made_from.write(out, "audit", {"settings": told, "inputs": inputs})


def _refuse_other(out: Path) -> None:
    for kind, names in {"a run": (RUN_FILE,), "an image set": (METADATA, DATASET)}.items():
        if any((out / name).exists() for name in names):
            raise InputError(f"--out {out}: it holds {kind}; give another folder.")
