"""The questions of an audit in their order: images are read once, and each question looks at what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dermsynth.audit import copies, reading, sheet
from dermsynth.audit.artefacts import artefacts
from dermsynth.audit.features import find_extractor
from dermsynth.audit.fidelity import fidelity
from dermsynth.audit.labels import agreement
from dermsynth.audit.membership import memberships
from dermsynth.audit.result import AuditResult
from dermsynth.audit.seen import see
from dermsynth.audit.sides import foreign, read_sides
from dermsynth.audit.two_sample import two_sample
from dermsynth.files import make_folder


@dataclass(frozen=True)
class More:
    """What is asked only where it is given.

    Args:
        checkpoints: of the generator, for the membership test.
        base: where their base lies now, if not where their runs say.
        classifier: run that says what images show.
        reading_sheet: pictures on a sheet for readers.
    """

    checkpoints: Sequence[Path] = ()
    base: str | None = None
    classifier: Path | None = None
    reading_sheet: int | None = None


def answer(
    out: Path, real: Path, synthetic: Sequence[Path], features: str, exclude: bool, seed: int, more: More
) -> AuditResult:
    """Ask all questions, and write audit.json, copies.csv and copies.png, and a reading sheet where one is asked for.

    Args:
        out: folder for them; made if it is not there.
        real: folder of the real set.
        synthetic: folders of the generated sets.
        features: name of the extractor.
        exclude: write which images are called copies into the generated sets.
        seed: of what is taken at random.
        more: what is asked only where it is given.

    Raises:
        InputError: a set, the extractor, a checkpoint or the classifier cannot be used.
    """
    generated, originals = read_sides(synthetic, real)
    extractor = find_extractor(features)
    make_folder(out)
    train_side, held_out = originals.of_split("train"), originals.of_split("val", "test")
    # First what may be refused: the search for copies takes long.
    if more.reading_sheet is not None:
        reading.write_sheet(generated, held_out, more.reading_sheet, out, seed)
    labels = agreement(more.classifier, generated, originals) if more.classifier else None
    membership = memberships(more.checkpoints, real, more.base, seed) if more.checkpoints else None
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
        foreign=foreign(generated, originals),
        fidelity=fidelity(train, seen, seed),
        copies=verdicts.result,
        membership=membership,
        labels=labels,
        two_sample=two_sample(train_side, train.features, generated, seen.features, seed),
        artefacts=artefacts(generated, train_side, seed),
    )
    copies.write_table(verdicts, train, out)
    sheet.write_pairs(verdicts, train, out)
    result.write(out)
    if exclude:
        copies.exclude(verdicts)
    return result
