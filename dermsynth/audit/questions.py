"""The questions of an audit in their order: images are read once, and each question looks at what was seen."""

from collections.abc import Sequence
from pathlib import Path

from dermsynth.audit import copies, sheet
from dermsynth.audit.features import find_extractor
from dermsynth.audit.fidelity import fidelity
from dermsynth.audit.result import AuditResult
from dermsynth.audit.seen import see
from dermsynth.audit.sides import read_sides
from dermsynth.files import make_folder


def answer(out: Path, real: Path, synthetic: Sequence[Path], features: str, exclude: bool, seed: int) -> AuditResult:
    """Ask all questions, and write audit.json, copies.csv and copies.png.

    Args:
        out: folder for them; made if it is not there.
        real: folder of the real set.
        synthetic: folders of the generated sets.
        features: name of the extractor.
        exclude: write which images are called copies into the generated sets.
        seed: of what is drawn at random.

    Raises:
        InputError: a set or the extractor cannot be used.
    """
    generated, originals = read_sides(synthetic, real)
    extractor = find_extractor(features)
    make_folder(out)
    train_side, held_out = originals.of_split("train"), originals.of_split("val", "test")
    train = see(train_side, extractor, all_views=True)
    seen = see(generated, extractor)
    verdicts = copies.find_copies(seen, see(held_out, extractor) if len(held_out) else None, train)
    result = AuditResult(
        real=real.resolve().name,
        synthetic=tuple(folder.resolve().name for folder in synthetic),
        features=extractor.name,
        label_by=generated.label_by,
        seed=seed,
        n_train=len(train_side),
        n_held_out=len(held_out),
        n_synthetic=len(generated),
        fidelity=fidelity(train, seen, seed),
        copies=verdicts.result,
    )
    copies.write_table(verdicts, train, out)
    sheet.write_pairs(verdicts, train, out)
    result.write(out)
    if exclude:
        copies.exclude(verdicts)
    return result
