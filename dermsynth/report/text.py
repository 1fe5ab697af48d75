"""A comparison as text for a terminal."""

import re
from collections.abc import Iterator, Sequence

from dermsynth.evaluation.comparison import ENSEMBLE, Comparison, Result
from dermsynth.evaluation.metrics import ACCURACY, AUROC, METRICS, Quantity
from dermsynth.evaluation.statistics import LEVEL, SEED
from dermsynth.report.csv_table import DOUBTS
from dermsynth.report.findings import sections
from dermsynth.report.number_format import (
    count,
    heading,
    interval,
    lower_is_better,
    number,
    p_value,
    points,
    spread,
    wrap,
)

NOT_ESTABLISHED = "not established"  # in the place of a p


def text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    c = comparison
    blocks = [_about(c), _values(c), _differences(c), _decisions(c), _findings(c)]
    return "\n\n".join(blocks) + "\n"


def _about(c: Comparison) -> str:
    counts = ", ".join(f"{name} {n} ({n / c.n_images:.2%})" for name, n in c.class_counts.items())
    most, share = c.commonest
    empty = [name for name, n in c.class_counts.items() if n == 0]
    lines = [
        f"Comparison of {len(c.arms)} arms on {c.sample}, split {' and '.join(c.splits)}.",
        f"Images per class: {counts}.",
        f"Answering {most} for every image has accuracy {share:.2%}.",
        f"Baseline: {c.baseline} ({c.baseline_reason}). Primary metric: {METRICS[c.primary].title}.",
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
        rows = [c.result(arm, quantity) for quantity in c.headline]
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
    if lower := lower_is_better(c.headline):
        notes.append(lower)
    return "\n".join([*lines, _wrap(" ".join(notes))])


def _differences(c: Comparison) -> str:
    width = _name_width(c)
    lines = _table_head(f"minus {c.baseline}", c.headline, width)
    for arm in c.others:
        rows = [c.result(arm, quantity) for quantity in c.headline]
        intervals = [interval(r.difference_low, r.difference_high, r.metric, sign=True) for r in rows]
        lines += [
            _cells(arm, [spread(r.difference, r.difference_sd, r.metric, sign=True) for r in rows], width),
            _cells("", intervals, width),
            _cells("", [_p(c, r, r.p) for r in rows], width),
        ]
    of_primary = [c.result(arm, Quantity(c.primary)) for arm in c.others if arm in c.planned]
    adjusted = "; ".join(f"{r.arm} {_p(c, r, r.p_holm)}" for r in of_primary)
    note = (
        "Paired: both arms are measured on the same resamples, and p (two-sided) is from them; ± is over "
        f"pairs of seeds. Holm's adjustment for {count(len(c.planned), 'comparison')} on {METRICS[c.primary].title}: "
        f"{adjusted}."
    )
    notes = [note, *_by_generator(c)]
    if any(NOT_ESTABLISHED in line for line in (*lines, note)):
        notes.append(
            f'"{NOT_ESTABLISHED}" stands for a p below {1 - LEVEL:.2f} that may not be the arm\'s doing: with few '
            f"{c.unit}, one seed, or seeds or generators that do not agree, the difference may come of these. The "
            f"column {DOUBTS} of comparison.csv says which."
        )
    return "\n".join([*lines, *(_wrap(line) for line in notes)])


def _by_generator(c: Comparison) -> Iterator[str]:
    """What another training of the generator gives, which the interval does not cover."""
    for arm in c.others:
        if rows := c.generator_results(arm, Quantity(c.primary)):
            each = ", ".join(f"{points(r.difference, c.primary, sign=True)} ({r.seeds})" for r in rows)
            yield f"{arm} minus {c.baseline} in {METRICS[c.primary].title}, by the generator of its images: {each}."


def _p(c: Comparison, row: Result, p: float | None) -> str:
    """A p, unless the seeds or the number of patients leave in doubt what it would say of the arms."""
    small = p is not None and p < 1 - LEVEL
    return NOT_ESTABLISHED if small and c.not_established(row) else p_value(p)


def _decisions(c: Comparison) -> str:
    lines = ["Tests on the same images"]
    base = c.result(c.baseline, Quantity(ACCURACY.name), ENSEMBLE)
    for arm in c.others:
        row = c.result(arm, Quantity(ACCURACY.name), ENSEMBLE)
        # An arm may have seeds that the baseline lacks: those have no partner and no test.
        pairs = [r for r in c.seed_results(arm, Quantity(ACCURACY.name)) if r.p is not None]
        lines += [
            f"  {arm}: exact McNemar {p_value(row.p)}",
            f"    {row.only_arm_correct} images right only in {arm}, {row.only_baseline_correct} only in "
            f"{c.baseline}; accuracy {row.value:.2%} against {base.value:.2%}.",
        ]
        if len(c.seed_results(arm, Quantity(ACCURACY.name))) > 1 and pairs:
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
    for row in c.results:
        if (row.arm, row.seeds, row.metric) != (arm, ENSEMBLE, AUROC.name) or row.p is None:
            continue
        base = c.result(c.baseline, Quantity(AUROC.name, row.class_name), ENSEMBLE)
        against = f" of {row.class_name}" if row.class_name else ""
        values = f"{number(row.value, row.metric)} against {number(base.value, row.metric)}"
        yield f"AUROC{against} {values}, DeLong {p_value(row.p)}."


def _findings(c: Comparison) -> str:
    lines = []
    for section in sections(c):
        lines.append(section.heading)
        lines += [_wrap(" ".join(finding.sentence for finding in of_one), "  ") for of_one in section.paragraphs]
    return "\n".join(lines)


def _name_width(c: Comparison) -> int:
    return max(len(f"minus {c.baseline}"), *(len(arm) for arm in c.arms), *(len(c.runs(arm)) + 2 for arm in c.arms), 10)


def _table_head(corner: str, columns: Sequence[Quantity], width: int) -> list[str]:
    titles = [heading(quantity) for quantity in columns]
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
    return wrap(whole, indent).replace("\xa0", " ")
