"""Does a generated image show what its label says? A classifier that has seen real train images alone is asked.

It is wrong of real images, too: so its agreement with the labels of real images that are held out stands beside.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsynth.audit.answers import Agreement, Labels
from dermsynth.audit.estimates import share, weighted_share, wilson
from dermsynth.audit.features import best_checkpoint
from dermsynth.audit.sides import Side, read_images
from dermsynth.classification.classifier import KIND, Classifier
from dermsynth.data.loading.transforms import Transform
from dermsynth.data.sets.manifest import train_split_sha256
from dermsynth.errors import InputError
from dermsynth.evaluation.metrics import Integers
from dermsynth.evaluation.runs import REAL_ONLY, REPEATED
from dermsynth.lesions import label_by
from dermsynth.provenance import check_provenance
from dermsynth.run.checkpoint_facts import kind_of
from dermsynth.run.checkpoint_io import configuration_of, read_checkpoint
from dermsynth.run.classes import named

_BATCH = 64


def agreement(run: Path, generated: Side, real: Side) -> Labels:
    """How often a classifier decides for the class of an image's label.

    Args:
        run: the classifier's run folder or checkpoint.
        generated: the generated images.
        real: all real images of the set that it was fitted on.

    Raises:
        InputError: it is no classifier's, was shown generated images, or was fitted on another train split.
    """
    content = read_checkpoint(best_checkpoint(run))
    if kind_of(content) != KIND:
        raise InputError(f"--classifier {run}: not a classifier's run. Give one that was fitted on real images alone.")
    try:
        config = configuration_of(content)
        _refuse_unfit(content, config, real)
        module = Classifier.of_configuration(config).take(content)
    except InputError as error:
        raise InputError(f"--classifier {run}: {error}") from error
    size = int(config["data"]["init_args"]["size"])
    ours, beside = (_of_classes(side, module.classes) for side in (generated, real.of_split("val", "test")))
    wanted, true = (_numbers(side, module.classes) for side in (ours, beside))
    decided = _decisions(module, ours, size, "generated")
    hits = _decisions(module, beside, size, "held-out") == true
    groups = np.unique(beside.groups, return_inverse=True)[1].astype(np.int64)
    counts, of_real = (np.bincount(some, minlength=len(module.classes)) for some in (wanted, true))
    # The real images weigh so that each class counts as much as it does among the generated ones.
    weights = np.divide(counts, of_real, out=np.zeros(len(counts)), where=of_real > 0)[true]

    def of(numbers: list[int]) -> Agreement:
        """Of the images of some classes."""
        some, others = np.isin(wanted, numbers), np.isin(true, numbers) & (weights > 0)
        names = zip(module.classes, np.bincount(decided[some], minlength=len(counts)).tolist(), strict=True)
        return Agreement(
            n=int(some.sum()),
            agreement=wilson(int((decided == wanted)[some].sum()), int(some.sum())),
            n_real=int(others.sum()),
            of_real=share(hits[others], groups[others])
            if len(numbers) == 1
            else weighted_share(hits[others], weights[others], groups[others]),
            decided=dict(names),
        )

    return Labels(
        classifier=run.resolve().name,
        left_out=len(generated) - len(ours),
        overall=of(list(range(len(counts)))),
        classes={name: of([number]) for number, name in enumerate(module.classes) if counts[number]},
    )


def _refuse_unfit(content: dict[str, Any], config: dict[str, Any], real: Side) -> None:
    """Refuse a classifier that saw generated images, or real ones that it is asked about beside."""
    given = config["data"].get("init_args", {})
    mix = named((given.get("mix") or {}).get("class_path", REAL_ONLY))
    if given.get("synthetic") and mix not in (REAL_ONLY, REPEATED):
        raise InputError(
            f"it was trained on generated images, too ({mix}), and would confirm what it learned of them. Give a run "
            "of real images alone."
        )
    (images,) = real.sets
    fitted = check_provenance("it", content["dermsynth"].get("data", {})).get("train_split_sha256", "")
    ours = train_split_sha256(images.records)
    if fitted != ours:
        raise InputError(
            f"it was fitted on another train split ({fitted[:12] or 'none'}) than that of {images.root} ({ours[:12]})."
            " Give one that was fitted on that set."
        )


def _of_classes(side: Side, classes: list[str]) -> Side:
    """The images of a classifier's classes, by the column that it takes labels from."""
    by = label_by(classes)
    return Side(side.sets, tuple(pair for pair in side.images if pair[1].class_name(by) in classes), by)


def _numbers(side: Side, classes: list[str]) -> Integers:
    return np.array([classes.index(name) for name in side.classes], dtype=np.int64)


def _decisions(module: Classifier, side: Side, size: int, what: str) -> Integers:
    """The class that each image is taken for, `[N]`."""
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    show, images = Transform(size, "none"), read_images(side, f"classes of {what} images")
    decided = [np.zeros(0, np.int64)]
    with torch.inference_mode():
        while batch := list(itertools.islice(images, _BATCH)):
            pixels = torch.stack([show(image, seed=0) for image in batch]).to(module.device)
            decided.append(module(pixels).argmax(dim=1).cpu().numpy())
    return np.concatenate(decided)
