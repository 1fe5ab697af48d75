"""`python -m dermsynth audit`: what was generated, beside what real images of other patients give."""

from pathlib import Path

from dermsynth import made_from
from dermsynth.audit.features import DEFAULT, extract, find_extractor
from dermsynth.audit.fidelity import fidelity
from dermsynth.audit.result import AuditResult
from dermsynth.audit.sides import read_sides
from dermsynth.files import make_folder
from dermsynth.report import audit_text


def audit(
    out: Path,
    real: Path,
    synthetic: list[Path],
    features: str = DEFAULT,
    seed: int = 0,
) -> None:
    """Audit generated images: do they look real, and is one of them somebody's photograph?

    Every number stands beside its floor: what real images of other patients give. Prints audit.txt and writes it with
    audit.json.

    Args:
        out: folder for the results; made if it is not there.
        real: the image set that the generator was fitted on.
        synthetic: one or more generated sets.
        features: what makes numbers of images: tiny, the autoencoder in the package; the folder of another pipeline; a
            transformers model's folder or hub id; or a classifier's run or checkpoint, for its last features.
        seed: of what is drawn at random.
    """
    told = made_from.settings(locals(), inputs=["real", "synthetic"])
    generated, originals = read_sides(synthetic, real)
    extractor = find_extractor(features)
    train, held_out = originals.of_split("train"), originals.of_split("val", "test")
    make_folder(out)
    made_from.write(out, "audit", None)
    vectors = {name: extract(extractor, side) for name, side in (("train", train), ("generated", generated))}
    result = AuditResult(
        real=real.resolve().name,
        synthetic=tuple(folder.resolve().name for folder in synthetic),
        features=extractor.name,
        label_by=generated.label_by,
        seed=seed,
        n_train=len(train),
        n_held_out=len(held_out),
        n_synthetic=len(generated),
        fidelity=fidelity(vectors["train"], train.classes, train.groups, vectors["generated"], generated.classes, seed),
    )
    result.write(out)
    print(audit_text.write(result, out), end="")
    inputs = {f"synthetic.{place}": made_from.content(folder) for place, folder in enumerate(synthetic)}
    made_from.write(out, "audit", {"settings": told, "inputs": {"real": made_from.content(real), **inputs}})
