"""What besides its images may explain why an arm differs, as far as the runs' configurations tell."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dermsynth.evaluation.runs import REPEATED, Run

# In these any two runs may differ: what comes of it is the seed's, or nothing.
OWN_KEYS = ("seed_everything", "run", "arm", "ckpt_path", "pixel_cache", "num_workers")
# What makes an arm: in these keys, and those below them, arms are meant to differ.
ARM_KEYS = ("data.init_args.synthetic", "data.init_args.mix", "data.init_args.allow_foreign")
STEPS = "trainer.max_steps"


def notes(arms: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """What besides the seed may explain a difference, as far as the runs' configurations are there."""
    of_arm: dict[str, dict[str, Any]] = {}
    for arm, runs in arms.items():
        configs = [_without(run.configuration, OWN_KEYS) for run in runs if run.configuration]
        several = len({run.generator for run in runs}) > 1
        if several:  # each of its runs is shown one generator's images
            configs = [_without(config, ("synthetic",)) for config in configs]
        keys = {key for c in configs for key in {**configs[0], **c} if c.get(key) != configs[0].get(key)}
        if changed := sorted(keys):
            yield f"the runs of {arm} differ in more than their seed: {', '.join(changed)}."
        if configs:
            of_arm[arm] = configs[0]
    of_all = sorted({key for config in of_arm.values() for key in config})
    unequal = [
        key
        for key in of_all
        if not key.startswith(ARM_KEYS) and len({str(config.get(key)) for config in of_arm.values()}) > 1
    ]
    if STEPS in unequal:
        # The schedule's length follows them.
        unequal = [key for key in unequal if key != STEPS and not key.endswith(".total_steps")]
        each = ", ".join(f"{arm} {config.get(STEPS)}" for arm, config in of_arm.items())
        yield f"{STEPS} is not the same in all arms ({each}): a difference may be that of longer training."
    if unequal:
        yield f"the arms differ in more than their images: {', '.join(unequal)}."


def without_control(arms: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Arms that show generated images while no arm repeats real ones (`OversampledReal`) for as many steps."""
    steps = {run.configuration.get(STEPS) for runs in arms.values() for run in runs if run.mix == REPEATED}
    for arm, runs in arms.items():
        if any(run.shows_generated and run.configuration.get(STEPS) not in steps for run in runs):
            yield arm


def _without(configuration: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The keys of a configuration in which none of these names stands."""
    return {key: value for key, value in configuration.items() if not set(key.split(".")) & set(names)}
