"""Words for a diagnosis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermsynth import lesions
from dermsynth.data.prepare.layouts.labels import Label, code_of, label_of
from dermsynth.errors import InputError

CODES = st.sampled_from(sorted(lesions.DIAGNOSES))


@given(CODES, st.sampled_from([str.lower, str.upper, str.title, str]), st.sampled_from([" ", "_", "-", "  "]))
def test_codes_and_names_in_any_spelling(code, case, blank):
    name = lesions.DIAGNOSES[code].name
    assert code_of(case(code)) == code
    assert code_of(case(name).replace(" ", blank)) == code
    assert label_of(case(name), {}) == Label(code, lesions.malignancy(code))


@given(st.text(max_size=12), CODES)
def test_a_mapping_comes_before_everything(word, code):
    assert label_of(word, {word: code}) == Label(code, lesions.malignancy(code))


def test_a_word_that_a_mapping_has_twice_is_refused():
    with pytest.raises(InputError, match=r"^--labels.melanoma NV --labels.Melanoma MEL: one word, as case"):
        label_of("MELANOMA", {"melanoma": "NV", "Melanoma": "MEL", "mole": "NV"})


def test_words_of_the_archive():
    for word, code in {
        "Melanoma in situ": "MEL",
        "Malignant melanocytic proliferations (Melanoma)": "MEL",
        "Squamous cell carcinoma, NOS": "SCC",
        "Solar or actinic keratosis": "AK",
        "Pigmented benign keratosis": "BKL",
        "Benign soft tissue proliferations - Vascular": "VASC",
        "Cafe au lait macule or patch": "CALM",
        "Lentigo NOS": "",
    }.items():
        assert code_of(word) == code


def test_what_is_not_known():
    assert label_of("unknown", {}) == label_of("", {}) == Label()
    assert label_of("benign", {}) == Label("", 0)
    assert label_of("wart", {}) is None
