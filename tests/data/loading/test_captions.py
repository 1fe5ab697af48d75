import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermsynth.data.loading.captions import Captions, person_phrase, prompts_of, site_phrase
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError

PROMPTS = {"MEL": "a dermoscopic image of sks melanoma", "NV": "a dermoscopic image of sks nevus"}
ALL = ("site", "sex", "age")


def record(site="lower extremity", sex="female", age=45.0):
    return Record("a.png", "a", "0", 8, 8, anatom_site_general=site, sex=sex, age_approx=age)


odd = st.one_of(
    st.sampled_from(
        ["", "unknown", "Unknown", " unknown ", "n/a", "UNKNOWN SITE", "unknown_site", "male", "head/neck"]
    ),
    st.text(max_size=12),
)


@given(odd, odd, st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.integers(0, 2**31)), st.floats(0, 1))
def test_no_caption_says_what_is_not_known(site, sex, age, seed, dropout):
    captions = Captions(PROMPTS, ALL, dropout)
    image = record(site, sex, age)
    text = captions.caption(image, "MEL", seed)
    assert "unknown" not in text.lower()
    assert not re.search(r"none|nan\b|n/a|inf\b", text)
    assert re.fullmatch(r"[a-z, ]+", text)
    assert text.startswith(PROMPTS["MEL"])
    assert text in captions.all_captions([(image, "MEL")])


@pytest.mark.parametrize(
    ("sex", "age", "words"),
    [
        ("female", 45.0, "of a woman in her forties"),
        ("male", 20.0, "of a man in his twenties"),
        ("male", 19.9, "of a boy in his teens"),
        ("female", 5.0, "of a girl under ten"),
        ("", 95.0, "of a person in their nineties"),
        ("", 0.0, "of a child under ten"),
        ("Male", None, "of a man"),
        ("female", float("nan"), "of a woman"),
        ("other", -1.0, ""),
        ("", 850.0, ""),
        ("", None, ""),
    ],
)
def test_sex_and_age_band_are_said_together(sex, age, words):
    assert person_phrase(sex, age) == words


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ("lower extremity", "on the lower extremity"),
        ("Lower_Extremity", "on the lower extremity"),
        ("head/neck", "on the head or neck"),
        ("moon", ""),
        ("", ""),
    ],
)
def test_sites_are_those_of_the_archive(site, words):
    assert site_phrase(site) == words


def test_only_what_is_asked_for_is_said():
    texts = {
        some: Captions(PROMPTS, some).caption(record(), "NV") for some in [(), ("site",), ("age",), ("sex", "site")]
    }
    assert texts == {
        (): "a dermoscopic image of sks nevus",
        ("site",): "a dermoscopic image of sks nevus, on the lower extremity",
        ("age",): "a dermoscopic image of sks nevus, of a person in their forties",
        ("sex", "site"): "a dermoscopic image of sks nevus, on the lower extremity, of a woman",
    }


def test_each_field_is_dropped_by_itself_as_often_as_asked_and_by_the_seed_alone():
    captions = Captions(PROMPTS, ALL, 0.3)
    texts = [captions.caption(record(), "MEL", seed) for seed in range(4000)]
    assert texts == [captions.caption(record(), "MEL", seed) for seed in range(4000)]
    kept = np.array([["extremity" in t, "woman" in t, "forties" in t] for t in texts])
    # Binomial: standard deviation 0.007.
    np.testing.assert_allclose(kept.mean(axis=0), 0.7, atol=0.04)
    np.testing.assert_allclose(np.corrcoef(kept.T), np.eye(3), atol=0.08)
    only_age = Captions(PROMPTS, ("age",), 0.3)
    assert ["forties" in only_age.caption(record(), "MEL", seed) for seed in range(100)] == kept[:100, 2].tolist()


def test_held_out_images_keep_all_their_words():
    assert Captions(PROMPTS, ALL, 1.0).caption(record(), "MEL") == (
        "a dermoscopic image of sks melanoma, on the lower extremity, of a woman in her forties"
    )
    assert Captions(PROMPTS, ALL, 1.0).caption(record(), "MEL", 3) == "a dermoscopic image of sks melanoma"


def test_all_captions_are_listed_and_no_others():
    images = [(record(), "MEL"), (record(sex=""), "NV"), (record(site="unknown", age=None), "NV")]
    for dropout in (0.0, 0.5):
        captions = Captions(PROMPTS, ALL, dropout)
        drawn = {captions.caption(image, name, seed) for image, name in images for seed in [None, *range(300)]}
        assert captions.all_captions(images) == sorted(drawn)


def test_classes_may_have_prompts_of_their_own():
    assert prompts_of("{lesion} {token}", "", ["NV", "MEL"], "sks", "prompt") == {
        "NV": "nevus sks",
        "MEL": "melanoma sks",
    }
    assert prompts_of({"MEL": "dark {token}"}, "a {lesion}", ["NV", "MEL"], "sks", "prompt") == {
        "NV": "a nevus",
        "MEL": "dark sks",
    }
    with pytest.raises(InputError, match=r"data\.instance_prompt: MLE not among data\.classes \(NV, MEL\)"):
        prompts_of({"MLE": "x"}, "a {lesion}", ["NV", "MEL"], "sks", "instance_prompt")


def test_braces_of_the_prompt_itself_are_doubled():
    assert prompts_of("a {{{token}}} {lesion}", "", ["NV"], "sks", "prompt") == {"NV": "a {sks} nevus"}


@pytest.mark.parametrize(
    "field",
    ["{colour}", "{}", "{token.x}", "{token[0]}", "{token!r}", "{token:>5}", "{lesion:{token}}", "{token", "token}"],
)
def test_only_token_and_lesion_as_they_are_can_be_filled_in(field):
    template = f"a mole of {field}"
    with pytest.raises(InputError) as error:
        prompts_of({"MEL": template}, "a {lesion}", ["NV", "MEL"], "sks", "instance_prompt")
    assert str(error.value).startswith(f"data.instance_prompt: in {template!r} only {{token}} and {{lesion}}")


@pytest.mark.parametrize(
    ("metadata", "dropout", "message"),
    [
        (("colour",), 0.0, "must be some of site, sex, age"),
        (("age", "age"), 0.0, "each once"),
        ((), 1.5, "from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(metadata, dropout, message):
    with pytest.raises(InputError, match=message):
        Captions(PROMPTS, metadata, dropout)
