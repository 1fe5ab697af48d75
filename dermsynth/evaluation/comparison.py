"""What a comparison found: its results, and what they are results of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dermsynth.evaluation.metrics import METRICS, Quantity
from dermsynth.evaluation.statistics import LEVEL
from dermsynth.lesions import DIAGNOSES

MEAN, ENSEMBLE, GENERATOR = "mean", "ensemble", "generator"
FEW_GROUPS = 30  # below it cluster methods reject too often (Cameron, Gelbach & Miller 2008)


@dataclass(frozen=True)
class Result:
    """One line of comparison.csv: a metric of an arm, and its difference from the baseline; fractions.

    Args:
        arm: name of the arm.
        seeds: `mean` over the runs, the `ensemble` of their mean probabilities, `seed N`, or, of an arm whose images
            come from several generators, `seed N, generator M`, and `generator M` for the mean over that one's runs.
        metric: name of the metric.
        class_name: the class it is measured for, against the rest; blank for all.
        value: on the test set as it is.
        sd: standard deviation over the seeds.
        low: lower end of the interval of the value.
        high: upper end.
        difference: the value minus the baseline's.
        difference_sd: standard deviation of the difference over the seeds that both arms have.
        difference_low: lower end of the interval of the difference.
        difference_high: upper end.
        difference_low_90: lower end of its 90 % interval, for the margin; of a metric whose higher values are better.
        difference_high_90: upper end of it; of a metric whose lower values are better.
        smallest_difference: what this test set would show with 80 % power.
        test: how p was found.
        p: two-sided.
        p_holm: adjusted for the number of arms; for the primary metric alone.
        only_baseline_correct: images that the baseline alone got right.
        only_arm_correct: images that the arm alone got right.
    """

    arm: str
    seeds: str
    metric: str
    class_name: str
    value: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_sd: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    difference_low_90: float | None = None
    difference_high_90: float | None = None
    smallest_difference: float | None = None
    test: str = ""
    p: float | None = None
    p_holm: float | None = None
    only_baseline_correct: int | None = None
    only_arm_correct: int | None = None


@dataclass(frozen=True)
class Comparison:
    """All that a report says.

    Args:
        results: one a line of comparison.csv.
        arms: number of seeds of each arm, in the order to show them.
        baseline: the arm that the others are compared with.
        baseline_reason: why this one.
        primary: name of the metric that the conclusion is about.
        class_counts: test images of each class, in the order of the label index.
        n_images: test images.
        n_groups: patients or lesions among them; an image without such an id is a group of its own.
        n_without_id: images without such an id.
        splits: the splits that the images come from.
        resamples: bootstrap resamples.
        undefined: largest number of resamples in which a metric was not defined.
        notes: what else to know about the runs.
        generators: number of generators that an arm's images come from; 0 where it was shown none, or nothing says it.
        margin: the loss in the primary metric that counts as no harm, or None.
        family: the arms that p is adjusted for; None for all but the baseline.
        without_control: arms that show generated images while none repeats real ones for as many steps.
    """

    results: tuple[Result, ...]
    arms: Mapping[str, int]
    baseline: str
    baseline_reason: str
    primary: str
    class_counts: Mapping[str, int]
    n_images: int
    n_groups: int
    n_without_id: int
    splits: tuple[str, ...]
    resamples: int
    undefined: int
    notes: tuple[str, ...] = ()
    generators: Mapping[str, int] = field(default_factory=dict)
    margin: float | None = None
    family: tuple[str, ...] | None = None
    without_control: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """The arms that are not the baseline."""
        return [arm for arm in self.arms if arm != self.baseline]

    @property
    def unit(self) -> str:
        """What is resampled with replacement, and taken as independent."""
        return "images" if self.n_without_id == self.n_images else "patients or lesions"

    @property
    def sample(self) -> str:
        """The images, and whose they are where that is known."""
        of_groups = "" if self.unit == "images" else f" of {self.n_groups:,} {self.unit}"
        return f"{self.n_images:,} images{of_groups}"

    @property
    def few_groups(self) -> bool:
        """Whether the intervals tend to be too narrow."""
        return self.n_groups < FEW_GROUPS

    @property
    def commonest(self) -> tuple[str, float]:
        """The commonest class, and the accuracy of answering it for every image."""
        name = max(self.class_counts, key=lambda name: self.class_counts[name])
        return name, self.class_counts[name] / self.n_images

    @property
    def headline(self) -> tuple[Quantity, ...]:
        """What to show: the leading overall metrics, then those of class 1 of two or the malignant diagnoses of more.

        A primary metric that does not lead takes the place of the last overall one, as the table has no room for more.
        """
        leading = [metric for metric in METRICS.values() if metric.leads]
        overall = [metric.name for metric in leading if metric.overall]
        if self.primary not in overall:
            overall[-1] = self.primary
        of_class = [metric.name for metric in leading if not metric.overall]
        classes = list(self.class_counts)
        watched = [name for name in classes if name in DIAGNOSES and DIAGNOSES[name].malignant]
        if len(classes) == 2:
            watched = classes[1:]
        if len(watched) > 1:
            of_class = of_class[:1]
        return (
            *(Quantity(name) for name in overall),
            *(Quantity(name, class_name) for class_name in watched for name in of_class),
        )

    def result(self, arm: str, quantity: Quantity, seeds: str = MEAN) -> Result:
        """The one result of an arm for a quantity."""
        return next(r for r in self.results if (r.arm, r.seeds, r.metric, r.class_name) == (arm, seeds, *quantity))

    @property
    def planned(self) -> list[str]:
        """The arms that are compared with the baseline by plan, for whose number p is adjusted."""
        return self.others if self.family is None else list(self.family)

    def weaknesses(self, arm: str) -> list[str]:
        """Why whatever the test images show of an arm may not hold for other models of it."""
        found = []
        if self.few_groups:
            found.append(f"with {self.n_groups} {self.unit} the interval tends to be too narrow")
        single = [name for name in (self.baseline, arm) if self.arms[name] < 2]
        if single:
            found.append(f"with one seed of {' and of '.join(single)} the difference may be the seed's")
        return found

    def doubts(self, arm: str, quantity: Quantity) -> list[str]:
        """Why a small p, which is over test images alone, does not establish that an arm differs from the baseline."""
        found = self.weaknesses(arm)
        difference = self.result(arm, quantity).difference or 0.0
        pairs = [r.difference for r in self.seed_results(arm, quantity) if r.difference is not None]
        agree = sum(pair * difference > 0 for pair in pairs)
        if len(pairs) > 1 and agree < len(pairs):
            found.append(
                f"only {agree} of {len(pairs)} pairs of seeds agree, so it may be the seeds' and not the arm's"
            )
        if len({(r.difference or 0.0) > 0 for r in self.generator_results(arm, quantity)}) > 1:
            found.append("the generators of its images do not agree, so it may be one generator's and not the arm's")
        return found

    def not_established(self, result: Result) -> list[str]:
        """The doubts about a result whose interval or p, taken by itself, would show a difference."""
        low, high, p = result.difference_low, result.difference_high, result.p
        apart = low is not None and high is not None and (low > 0 or high < 0)
        small = p is not None and p < 1 - LEVEL
        return self.doubts(result.arm, Quantity(result.metric, result.class_name)) if apart or small else []

    def seed_results(self, arm: str, quantity: Quantity) -> list[Result]:
        """The results of an arm's seeds, one each."""
        wanted = (arm, *quantity)
        return [r for r in self.results if (r.arm, r.metric, r.class_name) == wanted and r.seeds.startswith("seed ")]

    def generator_results(self, arm: str, quantity: Quantity) -> list[Result]:
        """The means over an arm's runs for each generator of its images, where there are several."""
        wanted = (arm, *quantity)
        return [r for r in self.results if (r.arm, r.metric, r.class_name) == wanted and r.seeds.startswith(GENERATOR)]

    def runs(self, arm: str) -> str:
        """How many runs an arm has, as `3 seeds` or `3 seeds × 2`, the second number being that of its generators."""
        seeds = "1 seed" if self.arms[arm] == 1 else f"{self.arms[arm]} seeds"
        return f"{seeds} × {self.generators[arm]}" if self.generators.get(arm, 0) > 1 else seeds
