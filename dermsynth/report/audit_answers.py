"""The blocks of an audit's text on membership, labels, telling apart, artefacts and readers."""

from collections.abc import Iterator, Sequence

from dermsynth.audit.answers import Artefacts, Labels, Membership, Readings, Told, TwoSample
from dermsynth.audit.estimates import Estimate
from dermsynth.audit.result import FEW, AuditResult
from dermsynth.report.number_format import count, wrap


def blocks(result: AuditResult) -> Iterator[str]:
    """A block for each of these questions that was asked."""
    if result.membership:
        yield "\n".join(_membership(result.membership))
    if result.labels:
        yield "\n".join(_labels(result.labels))
    if result.two_sample:
        yield "\n".join(_told_apart(result.two_sample, result.features))
    if result.artefacts:
        yield "\n".join(_artefacts(result.artefacts))
    if result.readings:
        yield "\n".join(_readings(result.readings))


def _membership(tests: Sequence[Membership]) -> Iterator[str]:
    yield "Was this patient in the training set?"
    yield wrap(
        "The denoising loss of each image under the base less that under the checkpoint, at the same noise, is the "
        "score: an image that was learned by heart has gained more. The area (AUROC) is 0.500 by chance; found are the "
        "train images above the score that 1% of the held-out ones exceed. Alone is the area of the checkpoint's or "
        "the base's own loss, which also differs where the splits do. Intervals are of 95%, resampling whole patients."
    )
    for test in tests:
        yield ""
        yield f"{test.checkpoint}, {count(test.step, 'step')} from {test.base}"
        yield f"  {'':<10}{'train':>7}{'held out':>10}{'area':>22}{'found':>24}{'loss alone':>12}{'base alone':>12}"
        for name, of in [("all", test.overall), *test.classes.items()]:
            alone = f"{_three(of.by_loss.value):>12}{_three(of.by_base.value):>12}"
            yield f"  {name:<10}{of.train:>7,}{of.held_out:>10,}{_area(of.auroc):>22}{_percent(of.found):>24}{alone}"
        yield wrap(_verdict_on_membership(test), "  ")
    yield ""
    yield wrap(
        "Who holds the checkpoint could do this, and more than this: an area near 0.5 says that this test finds "
        "nothing, not that there is nothing to find."
    )


def _verdict_on_membership(test: Membership) -> str:
    of = test.overall
    said = [
        f"Train images are told from those of {of.held_out_patients:,} held-out patients or lesions"
        " beyond chance: somebody could find out that a patient was in the training set."
        if _above(of.auroc, 0.5)
        else "Train images are not told from held-out ones beyond chance."
    ]
    if test.known_to_base:
        said.append(
            f"The base itself was fitted on {test.known_to_base:,} of the train images. What it knows of them the "
            "difference hides: only the areas alone can show it."
        )
    of_each = {"all": of, **test.classes}
    said += _few({name: min(one.train, one.held_out) for name, one in of_each.items()})
    if of.held_out < 100:
        said.append("With fewer than 100 held-out images, 1% of them is none: found is a share above all of them.")
    return " ".join(said)


def _labels(labels: Labels) -> Iterator[str]:
    yield "Does it show what its label says?"
    yield wrap(
        f"The classifier {labels.classifier}, fitted on real train images alone, decides for the class of the label so "
        "often; of real images it has not seen, beside. Intervals are of 95%."
    )
    if labels.left_out:
        yield wrap(f"{count(labels.left_out, 'generated image')} of other classes than its own are left out.")
    yield ""
    yield f"  {'':<12}{'generated':>11}{'agrees':>24}{'real':>8}{'agrees':>24}"
    for name, of in [("all", labels.overall), *labels.classes.items()]:
        cells = f"{of.n:>11,}{_percent(of.agreement):>24}{of.n_real:>8,}{_percent(of.of_real):>24}"
        yield f"  {name:<12}{cells}"
    for name, of in labels.classes.items():
        taken = ", ".join(f"{other} {n:,}" for other, n in of.decided.items() if n)
        yield wrap(f"{name} are taken for: {taken}.", "  ")
    less = [name for name, of in labels.classes.items() if _apart(of.agreement, of.of_real)]
    said = (
        f"Less often than with real images: {', '.join(less)}."
        if less
        else "Nowhere clearly less often than with real."
    )
    few = _few({name: min(of.n, of.n_real) for name, of in labels.classes.items()})
    yield wrap(" ".join([said, *few]), "  ")


def _told_apart(test: TwoSample, features: str) -> Iterator[str]:
    yield f"Can it be told from the real thing? On {features}"
    yield wrap(
        f"A logistic regression learns to tell real train images from generated ones, as many of each class, on "
        f"{test.folds - 1} of {test.folds} parts of the patients and is scored on the last: its area (AUROC) is 0.500 "
        "by chance and 1.000 where it always can. At equal n: against half of the real patients. Floor: the other half "
        f"against the same; both are means over {test.repeats} ways of halving."
    )
    yield ""
    yield f"  {'':<12}{'a side':>8}{'area':>24}{'a side':>8}{'at equal n':>12}{'floor':>8}{'highest':>9}"
    for name, of in [("all", test.overall), *test.classes.items()]:
        halves = f"{_three(of.matched):>12}{_three(of.floor):>8}{_three(of.floor_high):>9}"
        yield f"  {name:<12}{of.n:>8,}{_area(of.auroc):>24}{of.n_half:>8,}{halves}"
    few = _few({"all": test.overall.n, **{name: of.n for name, of in test.classes.items()}})
    yield wrap(" ".join([_verdict_on_telling(test.overall, features), *few]), "  ")


def _verdict_on_telling(of: Told, features: str) -> str:
    if of.matched is None or of.floor_high is None:
        return "Too few images for a floor."
    if of.matched > of.floor_high:
        return f"On {features} generated images are told from real ones better than real ones of other patients are."
    return f"On {features} generated images are told from real ones no better than real ones of other patients."


def _artefacts(found: Artefacts) -> Iterator[str]:
    yield "Are artefacts as frequent as among real images?"
    yield wrap(
        f"Each by one rule on both sides, at {found.size} pixels (dermsynth/audit/artefacts.py says which). A share is "
        "that of the images in which the rule finds something; it is wrong of some. Of all real images each class "
        "weighs as much as among the generated ones. Intervals are of 95%."
    )
    if found.left_out:
        yield wrap(f"Too fine to be seen at this size: {', '.join(found.left_out)}.")
    yield ""
    yield f"  {'':<32}{'generated':>11}{'share':>22}{'real':>8}{'share':>22}"
    for row in found.rows:
        cells = f"{row.n:>11,}{_percent(row.synthetic):>22}{row.n_real:>8,}{_percent(row.real):>22}"
        yield f"  {row.artefact + (', ' + row.class_name if row.class_name else ''):<32}{cells}"
    everything = [row for row in found.rows if not row.class_name]
    less = [row.artefact for row in everything if _apart(row.synthetic, row.real)]
    more = [row.artefact for row in everything if _apart(row.real, row.synthetic)]
    said = [f"Rarer than among real images: {', '.join(less)}."] if less else []
    said += [f"More frequent than among real images: {', '.join(more)}."] if more else []
    few = _few({row.class_name or "all": min(row.n, row.n_real) for row in found.rows})
    yield wrap(" ".join([*(said or ["In none do the two intervals lie apart."]), *few]), "  ")


def _readings(readings: Readings) -> Iterator[str]:
    yield "Can readers tell it from the real thing?"
    yield wrap(
        f"Blinded, on the {readings.n} pictures of sheet {readings.sheet}; 50% is chance. All readers together are "
        f"right in {_percent(readings.accuracy)}, with an interval over pictures. Quality is graded from 1 to 5."
    )
    yield ""
    yield f"  {'':<16}{'rated':>6}{'right':>22}{'of real':>10}{'of generated':>14}{'quality real, generated':>26}"
    for reader in readings.readers:
        quality = f"{_grade(reader.quality_real)}, {_grade(reader.quality_synthetic)}"
        cells = f"{_share(reader.of_real):>10}{_share(reader.of_synthetic):>14}{quality:>26}"
        yield f"  {reader.name[:15]:<16}{reader.n:>6}{_percent(reader.accuracy):>22}{cells}"
    for pair in readings.agreement:
        kappa = "is not defined" if pair.kappa is None else f"{pair.kappa:.2f}"
        yield f"  kappa of {pair.first} and {pair.second} on {count(pair.n, 'picture')}: {kappa}"
    low = readings.accuracy.low
    yield wrap(
        "They tell generated from real pictures beyond chance."
        if low is not None and low > 0.5
        else "That they can tell was not shown.",
        "  ",
    )


def _few(counts: dict[str, int]) -> list[str]:
    """A sentence where some of these are few."""
    few = [name for name, n in counts.items() if n < FEW]
    return [f"Fewer than {FEW} images say little: {', '.join(few)}."] if few else []


def _above(estimate: Estimate, chance: float) -> bool:
    return estimate.low is not None and estimate.low > chance


def _apart(lower: Estimate, higher: Estimate) -> bool:
    """Whether one interval lies wholly below the other."""
    return lower.high is not None and higher.low is not None and lower.high < higher.low


def _area(estimate: Estimate) -> str:
    return _with_interval(estimate, "{:.3f}")


def _percent(estimate: Estimate) -> str:
    return _with_interval(estimate, "{:.1%}")


def _with_interval(estimate: Estimate, how: str) -> str:
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return how.format(estimate.value)
    return f"{how.format(estimate.value)} [{how.format(estimate.low)}, {how.format(estimate.high)}]"


def _share(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.0%}"


def _grade(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
