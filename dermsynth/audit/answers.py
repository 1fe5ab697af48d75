"""What the tests of models, labels and readers return: plain numbers, per class and overall, each with n. No torch."""

from dataclasses import dataclass

from dermsynth.audit.estimates import Estimate


@dataclass(frozen=True)
class Attack:
    """What denoising losses tell of who was trained on, among the images of one class or of all.

    Args:
        train: images of the train split.
        held_out: images of patients who were not trained on.
        held_out_patients: how many patients or lesions these are of.
        auroc: of the base's loss minus the checkpoint's; 0.5 is chance.
        found: share of the train images above the score that 1 % of the held-out ones exceed.
        by_loss: the area of the checkpoint's loss alone.
        by_base: the area of the base's loss alone: what it knew before, and how far the two splits differ anyway.
    """

    train: int
    held_out: int
    held_out_patients: int
    auroc: Estimate
    found: Estimate
    by_loss: Estimate
    by_base: Estimate


@dataclass(frozen=True)
class Membership:
    """The membership test of one checkpoint.

    Args:
        checkpoint: its name, with its run's.
        step: optimizer steps that it was trained for.
        base: what it was fine-tuned from.
        known_to_base: train images that the base, too, was fitted on; calibration hides what it knows of them.
        overall: of all images.
        classes: of each class.
    """

    checkpoint: str
    step: int
    base: str
    known_to_base: int
    overall: Attack
    classes: dict[str, Attack]


@dataclass(frozen=True)
class Agreement:
    """How often a classifier decides for the class of the label, of one class or overall.

    Args:
        n: generated images.
        agreement: the share of them.
        n_real: held-out real images of the same classes.
        of_real: the share of these, each class weighing as much as among the generated ones.
        decided: how many generated images it takes for each class.
    """

    n: int
    agreement: Estimate
    n_real: int
    of_real: Estimate
    decided: dict[str, int]


@dataclass(frozen=True)
class Labels:
    """Does a generated image show what its label says?

    Args:
        classifier: the name of its run.
        left_out: generated images of other classes than its own.
        overall: of all others.
        classes: of each class that is generated.
    """

    classifier: str
    left_out: int
    overall: Agreement
    classes: dict[str, Agreement]


@dataclass(frozen=True)
class Told:
    """How well a classifier tells real from generated images on features, of one class or overall.

    Args:
        n: images of each side, as many of each class.
        auroc: cross-validated; 0.5 is chance, 1 is always.
        n_half: images of each side in what follows.
        matched: the area with so many; mean over the repeats.
        floor: of one half of the real patients against the other; mean over the repeats.
        floor_high: the highest of them.
    """

    n: int
    auroc: Estimate
    n_half: int
    matched: float | None
    floor: float | None
    floor_high: float | None


@dataclass(frozen=True)
class TwoSample:
    """Can real and generated images be told apart?

    Args:
        folds: of the cross-validation.
        repeats: how often the patients are halved.
        overall: of all classes together.
        classes: of each class.
    """

    folds: int
    repeats: int
    overall: Told
    classes: dict[str, Told]


@dataclass(frozen=True)
class Occurrence:
    """How often an artefact is found, in the images of one class or in all.

    Args:
        artefact: one of `artefacts.FINDERS`.
        class_name: blank for all images.
        n: generated images that were looked at.
        synthetic: the share of them.
        n_real: real train images that were looked at.
        real: the share of them; of all, each class weighing as much as among the generated ones.
    """

    artefact: str
    class_name: str
    n: int
    synthetic: Estimate
    n_real: int
    real: Estimate


@dataclass(frozen=True)
class Artefacts:
    """Are known artefacts as frequent among generated images as among real ones?

    Args:
        size: pixels of the short side at which all images were looked at.
        left_out: artefacts that are too fine to be seen at this size.
        rows: of each artefact, overall and then per class.
    """

    size: int
    left_out: tuple[str, ...]
    rows: tuple[Occurrence, ...]


@dataclass(frozen=True)
class Reader:
    """What one reader said of the pictures on a reading sheet.

    Args:
        name: as given on the sheet.
        n: pictures that were called real or generated.
        accuracy: the share of right answers.
        of_real: of the real pictures, those that were called real.
        of_synthetic: of the generated pictures, those that were called generated.
        quality_real: mean grade of the real pictures, 1 to 5.
        quality_synthetic: of the generated ones.
    """

    name: str
    n: int
    accuracy: Estimate
    of_real: Estimate
    of_synthetic: Estimate
    quality_real: float | None
    quality_synthetic: float | None


@dataclass(frozen=True)
class Kappa:
    """How far two readers agree beyond chance (Cohen 1960).

    Args:
        first: a reader.
        second: another.
        n: pictures that both called real or generated.
        kappa: 1 is always, 0 as often as chance; None where both said one and the same of all.
    """

    first: str
    second: str
    n: int
    kappa: float | None


@dataclass(frozen=True)
class Readings:
    """Are readers able to tell real from generated images?

    Args:
        sheet: the name of the reading sheet.
        n: pictures on it.
        accuracy: of all readers' answers, with an interval over pictures.
        readers: each of them.
        agreement: of each two of them.
    """

    sheet: str
    n: int
    accuracy: Estimate
    readers: tuple[Reader, ...]
    agreement: tuple[Kappa, ...]
