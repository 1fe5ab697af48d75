"""An audit in plain sentences. The extractor's name stands beside its numbers."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from dermsynth.audit.result import FEW, AuditResult, Copies, Fidelity, FidelityRow
from dermsynth.files import write_atomically, write_bytes_atomically
from dermsynth.report import audit_answers
from dermsynth.report.audit_figures import membership_curve
from dermsynth.report.number_format import count, wrap

TEXT, CURVE = "audit.txt", "membership.png"
_NAMES = {"fid": "FID", "kid": "KID", "irs": "IRS"}
_LESS_IS_BETTER = ("fid", "kid")
_ROUNDING = 1e-9
_WHAT_THEY_ARE = (
    "FID and KID are distances (less is nearer). Precision is the share of the generated images among the real ones, "
    "recall that of the real ones among the generated ones; density and coverage are the same less prone to outliers. "
    "IRS is the share of the real images that the generated ones would retrieve in the end. Diversity is the mean "
    "distance of two generated images."
)


def write(result: AuditResult, out: Path) -> str:
    """Write audit.txt, and membership.png where several checkpoints were tested, into a folder; return the text."""
    report = text(result)
    if result.membership and len(result.membership) > 1:
        picture = io.BytesIO()
        membership_curve(result.membership).savefig(picture, format="png", dpi=160)
        write_bytes_atomically(out / CURVE, picture.getvalue())
    write_atomically(out / TEXT, report)
    return report


def text(result: AuditResult) -> str:
    """The audit for a terminal."""
    blocks = [_about(result)]
    if result.fidelity:
        blocks.append("\n".join(_fidelity(result.fidelity, result.features)))
    if result.copies:
        blocks.append("\n".join(_copies(result.copies, result.features)))
    blocks += audit_answers.blocks(result)
    return "\n\n".join(blocks) + "\n"


def _about(r: AuditResult) -> str:
    about = wrap(
        f"Audit of {', '.join(r.synthetic)} ({count(r.n_synthetic, 'generated image')}) against {r.real} "
        f"({count(r.n_train, 'train image')}, {r.n_held_out:,} of val and test)."
    )
    if not r.foreign:
        return about
    unknown = wrap(
        f"The generator of {', '.join(r.foreign)} is not known to have been fitted on these train images. Photographs "
        "that it was fitted on and that are not among them are not looked for."
    )
    return f"{about}\n{unknown}"


def _fidelity(fidelity: Fidelity, features: str) -> Iterator[str]:
    yield "Does it look like the real thing?"
    names = list(dict.fromkeys(row.class_name for row in fidelity.rows))
    for name in names:
        rows = [row for row in fidelity.rows if row.class_name == name]
        yield ""
        yield f"{name or 'all'}, on {features}"
        yield f"  {'':<12}{'generated':>20}{'at equal n':>20}{'floor':>20}"
        yield from (_row(row) for row in rows)
        yield wrap(_verdict(rows), "  ")
    yield ""
    yield wrap(
        "Generated: all of them against the train images; ± is the spread of KID over random subsets. Floor: real "
        "images of one half of the patients against those of the other half; at equal n: as many generated ones "
        f"against the same half. Both are means ± standard deviations over {fidelity.repeats} ways of halving; every "
        "measure depends on the number of images, so compare these two."
    )
    yield wrap(_WHAT_THEY_ARE)
    yield wrap(
        "They describe how two sets of images differ to this extractor. That a classifier gains from such images they "
        "do not show."
    )


def _row(row: FidelityRow) -> str:
    halves = [(row.matched, row.matched_sd), (row.floor, row.floor_sd)]
    cells = "".join(f"{_spread(mean, sd):>20}" for mean, sd in halves)
    return f"  {_name(row):<12}{_spread(row.value, row.sd):>20}{cells}"


def _name(row: FidelityRow) -> str:
    return _NAMES.get(row.measure, row.measure)


def _spread(value: float | None, sd: float | None) -> str:
    if value is None:
        return "–"
    return _number(value) + ("" if sd is None else f" ± {_number(sd)}")


def _number(value: float) -> str:
    """Three significant digits; what rounding leaves of 0 is 0."""
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def _verdict(rows: Sequence[FidelityRow]) -> str:
    """Where the generated images are off the floor by more than the halves vary."""
    first = rows[0]
    sizes = f"{count(first.n_synthetic, 'generated image')}, {first.n_real:,} real"
    if first.n_half is not None:
        sizes += f"; {first.n_half:.0f} against half of the patients"
    worse = [_name(row) for row in rows if _is_worse(row)]
    if not any(row.floor is not None for row in rows):
        said = "Too few to be measured against a floor."
    elif worse:
        said = f"Worse than real images of other patients: {', '.join(worse)}."
    else:
        said = "In no measure worse than real images of other patients, beyond the spread."
    few = f" Fewer than {FEW} images say little." if min(first.n_synthetic, first.n_real) < FEW else ""
    return f"{sizes}. {said}{few}"


def _is_worse(row: FidelityRow) -> bool:
    """Beyond two standard deviations of the difference over the halves."""
    if row.matched is None or row.floor is None or row.matched_sd is None or row.floor_sd is None:
        return False
    behind = row.matched - row.floor if row.measure in _LESS_IS_BETTER else row.floor - row.matched
    return behind > 2 * (row.matched_sd**2 + row.floor_sd**2) ** 0.5


def _copies(copies: Copies, features: str) -> Iterator[str]:
    yield "Is it somebody's photograph?"
    yield wrap(
        f"Each generated image was compared with {count(copies.n_train, 'train image')} under the eight flips and "
        "rotations: by the worst of 16 tiles of pixels, relative to its 50 nearest, and by the distance in "
        f"{features}."
    )
    if copies.reached is None:
        yield wrap("There are no held-out images that would say how near strangers are: none is called a copy.")
        return
    out = f" ({copies.left_out:,} near-duplicates of train images left out)" if copies.left_out else ""
    yield wrap(
        f"It is called a copy where it is nearer than chance: of {count(copies.n_held_out, 'real image')} of val and "
        f"test{out}, whose patients the generator has not seen, at most {copies.reached:.1%} are called so."
    )
    if copies.reached > copies.false_alarms:
        yield wrap(f"That is more than the {copies.false_alarms:.0%} that was asked for, for want of held-out images.")
    yield ""
    yield f"{'':<14}{'generated':>12}{'copies':>10}{'share':>10}{'95% interval':>20}{'of train images':>18}"
    for row in copies.rows:
        share, low, high = (f"{end or 0:.1%}" for end in (row.share.value, row.share.low, row.share.high))
        interval = f"[{low}, {high}]"
        yield (
            f"{row.class_name or 'all':<14}{row.n:>12,}{row.copies:>10,}{share:>10}{interval:>20}"
            f"{row.train_images:>18,}"
        )
    yield wrap(_verdict_on_copies(copies))


def _verdict_on_copies(copies: Copies) -> str:
    everything, limit = copies.rows[0], copies.reached or 0.0
    if not everything.copies:
        said = "None is called a copy."
    elif (everything.share.low or 0.0) > limit:
        said = "That is more than false alarms explain. Look at copies.png; --exclude keeps them from training."
    else:
        said = "False alarms alone would explain as many. Look at copies.png."
    return (
        f"{said} This finds photographs that were reproduced. Whether a patient's having been in the train split "
        "can be told is another question, which only a membership test answers."
    )
