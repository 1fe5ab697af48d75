"""The card of a synthetic set: what it was made of, and the seven headings of Zamzmi et al. 2025."""

import re

import pytest

from dermsynth.data.sets import data_card, manifest
from dermsynth.data.sets.card import files
from tests.builders import make_set
from tests.data.sets.test_manifest import record

HEADINGS = ["Congruence", "Coverage", "Constraint", "Completeness", "Compliance", "Comprehension", "Consistency"]
SPLIT = "a" * 64


def made(**extra):
    known = {"train_split_sha256": SPLIT, "prompt": "a nevus", "checkpoint_sha256": "b" * 64, "guidance_scale": "2"}
    return record(image_id="x", origin="synthetic", diagnosis="NV", malignant=0, extra={**known, **extra})


def card(*records, **info):
    return "\n".join(data_card.lines(records, info))


def test_the_headings_in_their_order():
    assert re.findall(r"^- \*\*(\w+)\.\*\*", card(made()), flags=re.MULTILINE) == HEADINGS


def test_what_it_was_made_of():
    text = card(made(), made(prompt="a mole"), command="predict", dermsynth="1.2", base_license="creativeml-openrail-m")
    for line in (
        f"- Fitted on: train split `{SPLIT}`",
        f"- Checkpoint (SHA-256): `{'b' * 64}`",
        "- Guidance scale: `2`",
        "- Prompt: `a nevus`, `a mole`",
        "- Command: `predict`",
        "- Made with: dermsynth 1.2",
        "| NV | 2 |",
    ):
        assert line in text.splitlines()
    assert "- Steps" not in text, "nothing is said of what is not known"
    assert "to give medical advice" in text
    assert "diagnosis 2, malignant 2." in text
    assert "anonym" not in text


@pytest.mark.parametrize(
    ("split", "said"),
    [("unknown", "unknown"), ("", "no image set; the base as it is"), (SPLIT, f"train split `{SPLIT}`")],
)
def test_what_its_generator_was_fitted_on(split, said):
    assert f"- Fitted on: {said}\n" in card(made(train_split_sha256=split))


def test_many_prompts_are_counted_and_signs_do_no_harm():
    many = card(*(made(prompt=f"nevus {number}") for number in range(9)))
    assert re.search(r"- Prompt: (`nevus \d`, ){5}`nevus \d` and 3 others\n", many)
    assert "- Prompt: `a 'b' # c`\n" in card(made(prompt="a `b`\n# c"))


def test_photographs_through_an_autoencoder_are_called_so():
    assert "Each image is a patient's photograph" in card(made(reconstructed_from="ISIC_1"))
    assert "No image is a photograph" in card(made())


def test_only_synthetic_sets_have_one(tmp_path):
    for origin, has in (("real", False), ("synthetic", True)):
        root = make_set(tmp_path / origin, split="train", origin=origin)
        assert manifest.read(root).records
        assert ("## Scorecard" in (root / "README.md").read_text()) == has


@pytest.mark.parametrize(("origin", "title"), [("real", "# Image set"), ("synthetic", "# Synthetic image set")])
def test_the_title_and_the_first_line_say_whether_it_is_synthetic(origin, title):
    lines = files([record(image_id="x", origin=origin)], {})["README.md"].splitlines()
    assert title in lines
    assert any(line.startswith("1 synthetic images of skin lesions.") for line in lines) == (origin == "synthetic")
