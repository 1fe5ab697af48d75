"""What the card of a synthetic set says: how it was made, and the scorecard for synthetic medical data.

Seven headings of Zamzmi et al., Scorecard for synthetic medical data evaluation, Commun. Eng. 4:130 (2025). Under each
stands what is known without measuring; what was not measured is said to be so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dermsynth import base_licenses

if TYPE_CHECKING:  # manifest.py writes cards
    from dermsynth.data.sets.manifest import Record

# Columns of generated images, in the order in which the card shows them, and what it calls them.
_SETTINGS = {
    "base_model": "Base model",
    "checkpoint_sha256": "Checkpoint (SHA-256)",
    "scheduler": "Scheduler",
    "steps": "Steps",
    "guidance_scale": "Guidance scale",
    "negative_prompt": "Negative prompt",
    "prompt": "Prompt",
}
_SHOWN = 6  # values of a column; the others are in metadata.csv
_KNOWN = ("diagnosis", "malignant", "sex", "age_approx", "anatom_site_general", "skin_tone")
_GENERATED = (
    "No image is a photograph, and none may be taken for a patient's or help to decide on one. They are for research "
    "on what synthetic images do to the training of classifiers."
)
_RECONSTRUCTED = (
    "Each image is a patient's photograph as an autoencoder gives it back: whatever holds for the photograph, of which "
    "`reconstructed_from` is the id, holds for it. They are for research on what the autoencoder alone costs."
)


def lines(records: "Sequence[Record]", info: Mapping[str, Any]) -> list[str]:
    """The sections of a synthetic set's card, in Markdown.

    Args:
        records: of the set.
        info: what dataset.json says of it.
    """
    license = str(info.get("base_license", base_licenses.UNKNOWN))
    made = {title: _values(records, column) for column, title in _SETTINGS.items()}
    made = {"Command": _code(str(info.get("command", ""))), "Fitted on": _fitted_on(records), **made}
    if info.get("dermsynth"):
        made["Made with"] = f"dermsynth {info['dermsynth']}"
    classes = Counter(record.diagnosis or record.class_name("malignant") or "unknown" for record in records)
    return [
        "## Synthetic, not for diagnosis",
        "",
        _RECONSTRUCTED if any("reconstructed_from" in record.extra for record in records) else _GENERATED,
        "",
        "## How it was made",
        "",
        *(f"- {title}: {text}" for title, text in made.items() if text),
        "",
        base_licenses.explain(license),
        "",
        "| class | images |",
        "|---|---:|",
        *(f"| {name} | {count:,} |" for name, count in sorted(classes.items())),
        "",
        "## Scorecard",
        "",
        "The headings are those of [Zamzmi et al. 2025](https://doi.org/10.1038/s44172-025-00450-1).",
        "",
        *(f"- **{heading}.** {text}" for heading, text in _scorecard(records, license, _redrawn(info)).items()),
        "",
    ]


def _scorecard(records: "Sequence[Record]", license: str, redrawn: str) -> dict[str, str]:
    """What is known under each heading, as far as the set itself tells."""
    known = {name: sum(getattr(record, name) not in ("", None) for record in records) for name in _KNOWN}
    told = ", ".join(f"{name} {count:,}" for name, count in known.items() if count) or "none"
    files = len({record.sha256 for record in records})
    restricted = (
        " The base model's licence restricts their use, see above." if base_licenses.restricts_use(license) else ""
    )
    return {
        "Congruence": "How well the images agree with real ones was not measured when this card was written; "
        "`python -m dermsynth audit` does, beside how well real ones agree.",
        "Coverage": f"{len(records):,} images, {files:,} different files. How much of the variety of real lesions they "
        "show was not measured.",
        "Constraint": "No physician has checked that the images show the classes in their rows and nothing impossible."
        f"{redrawn}",
        "Completeness": f"Of {len(records):,} images are known: {told}. They say what the image was made to show.",
        "Compliance": "Every row has licence, attribution and the hash of the train split that the generator was "
        f"fitted on.{restricted} Whether an image comes close to a photograph of a training patient was not measured, "
        "so treat the set as if one might.",
        "Comprehension": "`dataset.json` and `metadata.csv` hold the settings, prompt and seed of every image, as far "
        "as its maker tells them.",
        "Consistency": "Each file is known by its SHA-256. Whether all groups of patients are shown equally well was "
        "not measured.",
    }


def _redrawn(info: Mapping[str, Any]) -> str:
    """How many images of each class were drawn again, as they showed nothing; blank where nobody looked."""
    counts = info.get("redrawn")
    if counts is None:
        return ""
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
    return f" Images that showed nothing (of one colour, or saturated) and were drawn again: {told}."


def _fitted_on(records: "Sequence[Record]") -> str:
    hashes = sorted({record.extra.get("train_split_sha256", "") for record in records})
    words = {"": "no image set; the base as it is", "unknown": "unknown"}
    return ", ".join(words.get(value, f"train split `{value}`") for value in hashes)


def _values(records: "Sequence[Record]", column: str) -> str:
    """The values of a column, the commonest first."""
    found = Counter(record.extra.get(column, "") for record in records)
    del found[""]
    shown = ", ".join(_code(value) for value, _ in found.most_common(_SHOWN))
    return f"{shown} and {len(found) - _SHOWN:,} others" if len(found) > _SHOWN else shown


def _code(text: str) -> str:
    """Text as it is, on one line, whatever signs it has."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`" if text.strip() else ""
