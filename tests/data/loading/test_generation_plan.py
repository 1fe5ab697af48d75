import math
from collections import Counter
from dataclasses import replace

import pytest

from dermsynth.data.loading.generation import GenerationData
from dermsynth.data.loading.generation_plan import ImagePrompts, WeightedPrompt, counts_of
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from tests.builders import make_set

CLASSES = ["NV", "MEL"]
TWO = [WeightedPrompt("a {lesion}", 3), WeightedPrompt("a dark {token} {lesion}")]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Eight nevi and two melanomas in train, as many again held out; of the nevi in train six are of women."""
    root = make_set(tmp_path_factory.mktemp("sets") / "real", {"NV": 16, "MEL": 4})
    known = manifest.read(root)
    women = {record.image_id for record in known.split("train")[:6]}
    records = [
        replace(record, sex="female" if record.image_id in women else "male", anatom_site_general="back")
        if record.split == "train"
        else replace(record, sex="male", age_approx=70)
        for record in known.records
    ]
    manifest.write(root, records, {})
    return root


def data(**options):
    return GenerationData(**{"classes": CLASSES, "batch_size": 2, **options})


def counts(**options):
    return Counter(image["class_name"] for image in data(**options).items)


def test_classes_are_filled_up_with_their_training_images_counted(real):
    assert counts(real=real, fill_to=10) == {"NV": 2, "MEL": 8}
    assert counts(real=real, fill_to=8) == {"MEL": 6}


def test_real_counts_are_matched(real):
    assert counts(real=real, match=1) == {"NV": 8, "MEL": 2}
    assert counts(real=real, match=0.5) == {"NV": 4, "MEL": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of count, fill_to and match says how many images; none is given"),
        ({"count": 3, "match": 1.0}, "exactly one .*; count and match are given"),
        ({"fill_to": 9}, r"data\.fill_to: it counts training images; give their image set as data\.real"),
        ({"match": math.nan, "real": True}, r"data\.match: nan must be above 0"),
        ({"match": math.inf, "real": True}, r"data\.match: inf must be above 0"),
        ({"match": 0.01, "real": True}, r"data\.match: 0\.01 asks for no image"),
        ({"fill_to": 2, "real": True}, r"data\.fill_to: 2 asks for no image, as .*real has 8 NV, 2 MEL in its train"),
        ({"count": 1, "metadata": ["sex"]}, r"data\.metadata: .* give their image set as data\.real"),
        ({"count": 1, "metadata": ["hair"], "real": True}, r"data\.metadata: .* must be some of site, sex, age"),
        ({"count": 1, "prompt": []}, r"data\.prompt: the list of NV is empty"),
        ({"count": 1, "prompt": {"SK": TWO}}, r"data\.prompt: SK not among data\.classes"),
        ({"count": 1, "prompt": [WeightedPrompt("a {colour} mole")]}, r"only \{token\} and \{lesion\}"),
    ],
)
def test_plans_of_no_sense_are_refused(real, options, said):
    options = {**options, **({"real": real} if "real" in options else {})}
    with pytest.raises(InputError, match=said):
        data(**options)


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_weight_that_says_nothing_is_refused(weight):
    with pytest.raises(InputError, match=r"data\.prompt: the weight .* must be above 0"):
        WeightedPrompt("a {lesion}", weight)


def test_prompts_are_drawn_by_their_weights():
    made = Counter(image["prompt"] for image in data(classes=["NV"], count=4000, prompt=TWO).items)
    assert set(made) == {"a nevus", "a dark sks nevus"}
    assert abs(made["a nevus"] / 4000 - 0.75) < 0.03  # four standard deviations


def test_a_class_may_have_a_list_of_its_own():
    made = {image["prompt"] for image in data(count=50, prompt={"MEL": TWO}).items}
    assert made == {"a dermoscopic image of sks nevus", "a melanoma", "a dark sks melanoma"}


def test_phrases_have_the_distribution_of_the_training_images(real):
    plan = data(count=2000, prompt="a {lesion}", metadata=["sex", "age", "site"], real=real)
    made = Counter(image["prompt"] for image in plan.items)
    # Nobody is seventy: that is known of held-out images alone.
    woman, man = "a nevus, on the back, of a woman", "a nevus, on the back, of a man"
    assert set(made) == {woman, man, "a melanoma, on the back, of a man"}
    assert abs(made[woman] / 2000 - 0.75) < 0.04
    assert set(plan.prompts["data.prompt"]) == set(made) | {"a nevus", "a melanoma"}


def test_an_image_is_planned_alike_in_any_shard(real):
    options = {"count": 20, "prompt": TWO, "metadata": ["sex"], "real": real, "seed": 5}
    parts = [data(**options, shard=shard, shards=3).items for shard in range(3)]
    whole = data(**options).items
    assert sorted((image for part in parts for image in part), key=lambda image: image["index"]) == whole
    assert [image["prompt"] for image in whole] != [image["prompt"] for image in data(**{**options, "seed": 6}).items]


def test_what_is_drawn_says_nothing_of_what_is_drawn_beside_it(real):
    """Of a class of one record, the prompt is the same with and without phrases."""
    plain, told = (ImagePrompts(TWO, ["MEL"], "sks", fields, manifest.read(real)) for fields in (None, ["sex"]))
    for seed in range(50):
        assert told.of("MEL", seed) == f"{plain.of('MEL', seed)}, of a man"


def test_the_token_is_asked_for_where_one_prompt_of_several_has_it():
    assert data(count=1, prompt=TWO).token == "sks"
    assert data(count=1, prompt=TWO[:1]).token == ""


def test_counts_need_no_set():
    assert counts_of(CLASSES, {"NV": 0, "MEL": 2}, None, None, None) == {"NV": 0, "MEL": 2}
