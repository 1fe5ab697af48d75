"""What is chosen before a comparison, checked by the names of the arms alone: its baseline, margin and family."""

from collections.abc import Sequence

DEFAULT_BASELINES = ("real", "baseline")


def choose_baseline(arms: Sequence[str], wanted: str | None) -> tuple[str, str]:
    """The arm that the others are compared with.

    Args:
        arms: their names, in the order given.
        wanted: one of them, or None for the default.

    Returns:
        Its name, and why it is that one.

    Raises:
        ValueError: no arm is called as wanted.
    """
    if wanted is not None:
        if wanted not in arms:
            raise ValueError(f"no arm {wanted}; there are {', '.join(arms)}.")
        return wanted, "as asked"
    for name in DEFAULT_BASELINES:
        if name in arms:
            return name, "by its name"
    return arms[0], "the first given"


def check_margin(margin: float | None) -> None:
    """Refuse a margin that is none.

    Raises:
        ValueError: it is no fraction.
    """
    if margin is not None and not 0 < margin < 1:
        raise ValueError(f"{margin:g} is no margin: expected a fraction above 0 and below 1, as 0.02 for two points.")


def check_family(family: Sequence[str] | None, arms: Sequence[str], baseline: str) -> None:
    """Refuse a family of comparisons that is none.

    Args:
        family: names of arms, or None for all but the baseline.
        arms: the names of all.
        baseline: what the others are compared with.

    Raises:
        ValueError: it is empty, names an arm twice, the baseline, or an arm that is not there.
    """
    if family is None:
        return
    others = [arm for arm in arms if arm != baseline]
    if not family:
        raise ValueError("it names no arm. Leave it out for all arms.")
    if unknown := [name for name in family if name not in others]:
        raise ValueError(f"{unknown[0]} is not an arm that is compared with {baseline}: {', '.join(others)}.")
    if twice := [name for name in family if family.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice. Name it once.")
