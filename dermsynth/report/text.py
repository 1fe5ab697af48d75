"""A comparison of arms as text, CSV and a forest plot, in one folder."""

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from dermsynth.errors import InputError
from dermsynth.evaluation.comparison import ENSEMBLE, MEAN, Comparison, Row
from dermsynth.evaluation.statistics import LEVEL, POWER, SEED, Metric
from dermsynth.files import make_folder, write_atomically, write_bytes_atomically
from dermsynth.report import figures as forest
from dermsynth.report.wording import NAMES, count, interval, number, p_value, points, spread, title

LINE = 100
DOUBTS = "not_established"


def write(comparison: Comparison, out: Path) -> str:
    """Write comparison.txt, comparison.csv and comparison.png into a folder; return the text.

    Raises:
        InputError: `out` is a file, or no folder can be made there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: this is a file; give a folder.")
    make_folder(out)
    report = text(comparison)
    write_atomically(out / "comparison.csv", table(comparison))
    picture = io.BytesIO()
    forest.plot(comparison).savefig(picture, format="png", dpi=160)
    write_bytes_atomically(out / "comparison.png", picture.getvalue())
    write_atomically(out / "comparison.txt", report)
    return report


def table(comparison: Comparison) -> str:
    """The rows as CSV, six significant digits, blank where there is nothing to say.

    The last column says why a difference is not established; the mean over seeds then has no p.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*(f.name for f in fields(Row)), DOUBTS], lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        doubts = comparison.not_established(row)
        cells = {**asdict(row), DOUBTS: "; ".join(doubts)}
        if doubts and row.seeds == MEAN:
            cells |= {"p": None, "p_holm": None, "smallest_difference": None}
        for name, value in cells.items():
            if isinstance(value, float):
                cells[name] = "" if math.isnan(value) else f"{value:.6g}"
        writer.writerow(cells)
    return buffer.getvalue()


def text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    c = comparison
    blocks = [_about(c), _values(c), _differences(c), _decisions(c), _conclusion(c)]
    return "\n\n".join(blocks) + "\n"


def _about(c: Comparison) -> str:
    counts = ", ".join(f"{name} {n} ({n / c.n_images:.2%})" for name, n in c.class_counts.items())
    most = max(c.class_counts, key=lambda name: c.class_counts[name])
    empty = [name for name, n in c.class_counts.items() if n == 0]
    lines = [
        f"Comparison of {len(c.arms)} arms on {c.sample}, split {' and '.join(c.splits)}.",
        f"Images per class: {counts}.",
        f"Answering {most} for every image has accuracy {c.class_counts[most] / c.n_images:.2%}.",
        f"Baseline: {c.baseline} ({c.baseline_reason}). Primary metric: {NAMES[c.primary]}.",
    ]
    if c.n_without_id == c.n_images:
        copies = " but for copies of one photograph" if c.n_groups < c.n_images else ""
        lines.append(f"There are no patient or lesion ids: images are taken as independent{copies}.")
    elif c.n_without_id:
        without = count(c.n_without_id, "image")
        lines.append(f"Of {without} no patient or lesion is known: each is taken as a patient of its own.")
    if empty:
        lines.append(f"No image of {', '.join(empty)}: what needs one is not defined (–).")
    lines += [f"Note: {note}" for note in c.notes]
    return "\n".join(_wrap(line) for line in lines)


def _values(c: Comparison) -> str:
    width = _name_width(c)
    lines = _table_head("", c.headline, width)
    for arm in c.arms:
        rows = [c.row(arm, metric) for metric in c.headline]
        means = [spread(r.value, r.sd, r.metric) for r in rows]
        intervals = [interval(r.low, r.high, r.metric) for r in rows]
        lines += [_cells(arm, means, width), _cells(f"  {c.runs(arm)}", intervals, width)]
    notes = [
        f"Mean ± standard deviation over seeds; below it the {LEVEL:.0%} interval of the mean, by drawing",
        f"{'' if c.unit == 'images' else 'whole '}{c.unit} with replacement ({c.resamples:,} resamples, seed {SEED}).",
    ]
    if max(c.generators.values(), default=0) > 1:
        notes.append("× counts the generators of an arm's images, each trained with a seed of its own.")
    if c.undefined:
        notes.append(
            f"Up to {c.undefined:,} resamples held no image of some class; "
            "what is not defined on them is taken over the others."
        )
    if c.few_groups:
        notes.append(f"With {c.n_groups} {c.unit} the intervals are rough and tend to be too narrow.")
    return "\n".join([*lines, _wrap(" ".join(notes))])


def _differences(c: Comparison) -> str:
    width = _name_width(c)
    lines = _table_head(f"minus {c.baseline}", c.headline, width)
    for arm in c.others:
        rows = [c.row(arm, metric) for metric in c.headline]
        intervals = [interval(r.difference_low, r.difference_high, r.metric, sign=True) for r in rows]
        lines += [
            _cells(arm, [spread(r.difference, r.difference_sd, r.metric, sign=True) for r in rows], width),
            _cells("", intervals, width),
            _cells("", [_p(c, r, r.p) for r in rows], width),
        ]
    of_primary = [c.row(arm, Metric(c.primary)) for arm in c.others if arm in c.planned]
    adjusted = "; ".join(f"{r.arm} {_p(c, r, r.p_holm)}" for r in of_primary)
    note = (
        "Paired: both arms are measured on the same resamples, and p (two-sided) is from them; ± is over "
        f"pairs of seeds. Holm's adjustment for {count(len(c.planned), 'comparison')} on {NAMES[c.primary]}: "
        f"{adjusted}."
    )
    return "\n".join([*lines, _wrap(note), *(_wrap(line) for line in _by_generator(c))])


def _by_generator(c: Comparison) -> Iterator[str]:
    """What another training of the generator gives, which the interval does not cover."""
    for arm in c.others:
        if rows := c.generator_rows(arm, Metric(c.primary)):
            each = ", ".join(f"{points(r.difference, c.primary, sign=True)} ({r.seeds})" for r in rows)
            yield f"{arm} minus {c.baseline} in {NAMES[c.primary]}, by the generator of its images: {each}."


def _p(c: Comparison, row: Row, p: float | None) -> str:
    """A p, unless the seeds or the number of patients leave in doubt what it would say of the arms."""
    small = p is not None and p < 1 - LEVEL
    return "not established" if small and c.not_established(row) else p_value(p)


def _decisions(c: Comparison) -> str:
    lines = ["Tests on the same images"]
    base = c.row(c.baseline, Metric("accuracy"), ENSEMBLE)
    for arm in c.others:
        row = c.row(arm, Metric("accuracy"), ENSEMBLE)
        # An arm may have seeds that the baseline lacks: those have no partner and no test.
        pairs = [r for r in c.seed_rows(arm, Metric("accuracy")) if r.p is not None]
        lines += [
            f"  {arm}: exact McNemar {p_value(row.p)}",
            f"    {row.only_arm_correct} images right only in {arm}, {row.only_baseline_correct} only in "
            f"{c.baseline}; accuracy {row.value:.2%} against {base.value:.2%}.",
        ]
        if len(c.seed_rows(arm, Metric("accuracy"))) > 1 and pairs:
            lines.append(_wrap(f"By seed: {', '.join(f'{r.seeds} {p_value(r.p)}' for r in pairs)}.", "    "))
        lines += [f"    {sentence}" for sentence in _areas(c, arm)]
    notes = (
        "An arm's answer is the class of highest mean probability over its seeds. These p are of these trained models: "
        "they do not say that the arms differ."
    )
    if len({c.runs(arm) for arm in c.arms}) > 1:
        notes += " The arms have different numbers of seeds or generators, and averaging more runs helps by itself."
    if c.n_groups < c.n_images:
        known = c.n_without_id < c.n_images
        several = "patients or lesions have several" if known else "some photographs have copies"
        notes += f" These tests take images as independent; {several} here, so trust the intervals where they differ."
    return "\n".join([*lines, _wrap(notes)])


def _areas(c: Comparison, arm: str) -> Iterator[str]:
    for row in c.rows:
        if (row.arm, row.seeds, row.metric) != (arm, ENSEMBLE, "auroc") or row.p is None:
            continue
        base = c.row(c.baseline, Metric("auroc", row.class_name), ENSEMBLE)
        against = f" of {row.class_name}" if row.class_name else ""
        values = f"{number(row.value, row.metric)} against {number(base.value, row.metric)}"
        yield f"AUROC{against} {values}, DeLong {p_value(row.p)}."


def _conclusion(c: Comparison) -> str:
    metric = Metric(c.primary)
    limits = (
        f"The intervals cover the choice of test {c.unit} for these trained models. They do not cover the "
        "choice of training images, nor other clinics, cameras and skin tones than the test set's."
    )
    if min(c.arms.values()) == 1:
        limits += " An arm here has one seed, so a difference may be the seed's and not the arm's."
    else:
        limits += " How much the training seed matters is the ±."
    if 1 in c.generators.values():
        limits += " The generated images are of one generator: what another training of it would give is not in them."
    power = ", ".join(_smallest(c, c.row(arm, metric)) for arm in c.others)
    could = (
        f"Smallest true difference in {NAMES[c.primary]} that this test set shows with {POWER:.0%} "
        f"power, two-sided at {1 - LEVEL:.0%}, before Holm's adjustment: {power}. "
        "It is 2.80 standard errors of the paired difference (Bloom 1995), of these trained models: what other seeds "
        "would give is not in it."
    )
    if c.few_groups:
        could += f" With {c.n_groups} {c.unit} that error tends to be too small, and so is this."
    return "\n".join(
        [
            "What this shows",
            *(_wrap(f"{verdict(c, arm)}{_harm(c, arm)}{_control(c, arm)}", "  ") for arm in c.others),
            "What it does not show",
            _wrap(limits, "  "),
            "What it could show",
            _wrap(could, "  "),
        ]
    )


def _smallest(c: Comparison, row: Row) -> str:
    if c.not_established(row):
        return f"{row.arm} not known (see above)"
    return f"{row.arm} {points(row.smallest_difference, row.metric)}"


def verdict(c: Comparison, arm: str) -> str:
    """Plain sentences on an arm against the baseline; a difference is claimed only where nothing speaks against it."""
    row, name = c.row(arm, Metric(c.primary)), NAMES[c.primary]
    difference, low, high = row.difference or 0.0, row.difference_low or 0.0, row.difference_high or 0.0
    ends = f"{LEVEL:.0%} interval {number(low, c.primary, sign=True)} to {number(high, c.primary, sign=True)}"
    change = f"{points(difference, c.primary, sign=True)}, {ends}"
    exact = _exact_test(c, arm)
    if not (low > 0 or high < 0):
        return f"{arm}: no difference in {name} from {c.baseline} shown ({change}, which contains zero).{exact}"
    direction = "higher" if difference > 0 else "lower"
    doubts = list(_doubts(c, arm))
    if doubts:
        size = points(abs(difference), c.primary)
        return (
            f"{arm}: {name} was {size} {direction} than {c.baseline}'s in this test set ({ends}). "
            f"That the arms differ is not established: {'; '.join(doubts)}.{exact}"
        )
    return f"{arm}: {name} is {direction} than {c.baseline}'s in this test set ({change}).{exact}"


def _harm(c: Comparison, arm: str) -> str:
    """A sentence on the margin, if there is one."""
    if c.margin is None:
        return ""
    low = c.row(arm, Metric(c.primary)).difference_low_90
    low = math.nan if low is None else low
    end = f"lower end of the 90% interval {number(low, c.primary, sign=True)}"
    margin = points(c.margin, c.primary)
    if not low > -c.margin:
        return f" Harm by more than the margin of {margin} is not excluded ({end})."
    weak = c.weaknesses(arm)
    unsure = f"; not established: {'; '.join(weak)}" if weak else ""
    return f" No harm by the margin of {margin} ({end}, not adjusted for the number of arms{unsure})."


def _control(c: Comparison, arm: str) -> str:
    """A sentence where the difference may be that of seeing images more often."""
    if arm not in c.without_control:
        return ""
    return (
        " No arm here repeats real images for as many steps (OversampledReal), so this cannot tell generated images "
        "from more repetitions."
    )


def _doubts(c: Comparison, arm: str) -> Iterator[str]:
    """Why an interval that leaves out zero does not establish a difference."""
    row = c.row(arm, Metric(c.primary))
    if arm not in c.planned:
        yield f"it is not among the comparisons that were planned ({', '.join(c.planned) or 'none'})"
    elif row.p_holm is None or not row.p_holm < 1 - LEVEL:
        yield f"after Holm's adjustment for {count(len(c.planned), 'comparison')} {p_value(row.p_holm)}"
    yield from c.doubts(arm, Metric(c.primary))


def _exact_test(c: Comparison, arm: str) -> str:
    """A sentence where McNemar's test and the bootstrap interval of the accuracy do not say the same."""
    if c.primary != "accuracy":
        return ""
    row, exact = c.row(arm, Metric("accuracy")), c.row(arm, Metric("accuracy"), ENSEMBLE)
    low, high = row.difference_low or 0.0, row.difference_high or 0.0
    gained, lost = exact.only_arm_correct or 0, exact.only_baseline_correct or 0
    by_interval = 1 if low > 0 else -1 if high < 0 else 0
    by_counts = (gained > lost) - (gained < lost) if exact.p is not None and exact.p < 1 - LEVEL else 0
    if by_interval == by_counts:
        return ""
    return (
        f" The exact McNemar test of the ensembles disagrees with this interval: {p_value(exact.p)}, "
        f"{gained} images right only in {arm} and {lost} only in {c.baseline}."
    )


def _name_width(c: Comparison) -> int:
    return max(len(f"minus {c.baseline}"), *(len(arm) for arm in c.arms), *(len(c.runs(arm)) + 2 for arm in c.arms), 10)


def _table_head(corner: str, columns: Sequence[Metric], width: int) -> list[str]:
    titles = [title(metric) for metric in columns]
    heads = [
        _cells("", [upper for upper, _ in titles], width),
        _cells(corner, [lower for _, lower in titles], width),
    ]
    return [*(head.rstrip() for head in heads), "-" * len(heads[0])]


def _cells(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>20}" for cell in cells)


def _wrap(paragraph: str, indent: str = "") -> str:
    # Hard spaces while wrapping keep a p and its number on one line.
    whole = re.sub(r"p ([=<]) ", "p\xa0\\1\xa0", paragraph)
    filled = textwrap.fill(whole, LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return filled.replace("\xa0", " ")
