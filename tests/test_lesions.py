import pytest

from dermsynth import lesions
from dermsynth.errors import InputError


def test_malignant_are_melanoma_and_both_carcinomas():
    assert {code for code, d in lesions.DIAGNOSES.items() if d.malignant} == {"MEL", "BCC", "SCC"}
    assert lesions.DIAGNOSES["AK"].malignant is None


def test_classes_decide_the_label():
    assert lesions.label_by(["benign", "malignant"]) == "malignant"
    assert lesions.label_by(["NV", "MEL"]) == "diagnosis"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "is empty or repeats"),
        (["NV", "NV"], "is empty or repeats"),
        (["NV", "malignant"], "malignant not known"),
        (["nevus"], "nevus not known"),
    ],
)
def test_classes_that_label_nothing_are_refused(classes, message):
    with pytest.raises(InputError, match=message):
        lesions.label_by(classes)


def test_phrases_are_words_for_a_prompt():
    assert lesions.phrase("SK") == "seborrheic keratosis"
    assert lesions.phrase("malignant") == "malignant skin lesion"


def test_codes_agree_if_one_is_coarser_or_blank():
    assert lesions.agree("SK", "BKL")
    assert lesions.agree("AKIEC", "SCC")
    assert lesions.agree("", "MEL")
    assert not lesions.agree("AK", "SCC")
    assert not lesions.agree("BKL", "NV")
    assert set().union(*lesions.COARSE.values(), lesions.COARSE) <= set(lesions.DIAGNOSES)


def test_malignancy_is_what_the_manifest_says():
    assert [lesions.malignancy(code) for code in ("MEL", "NV", "AK", "AKIEC", "")] == [1, 0, None, None, None]
