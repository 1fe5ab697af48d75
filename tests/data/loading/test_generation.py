import pytest

from dermsynth.data.loading.generation import GenerationData, image_seed
from dermsynth.errors import InputError
from tests.ranks import at_once


def test_generation_gives_each_image_a_seed_of_its_index_alone():
    data = GenerationData(classes=["NV", "MEL"], count={"NV": 2, "MEL": 3}, batch_size=2, seed=7)
    batches = list(data.predict_dataloader())
    assert [n for b in batches for n in b["class_name"]] == ["NV", "NV", "MEL", "MEL", "MEL"]
    assert [int(s) for b in batches for s in b["seed"]] == [image_seed(7, i) for i in range(5)]
    assert len({image_seed(7, i) for i in range(1000)} | {image_seed(8, i) for i in range(1000)}) == 2000


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_hold_the_same_images_whatever_their_number(shards):
    def made(**which):
        data = GenerationData(classes=["NV", "MEL"], count={"NV": 4, "MEL": 3}, batch_size=2, seed=7, **which)
        return data.items

    parts = [made(shard=shard, shards=shards) for shard in range(shards)]
    for shard, part in enumerate(parts):
        assert [item["index"] for item in part] == list(range(shard, 7, shards))
    assert sorted((item for part in parts for item in part), key=lambda item: item["index"]) == made()


def test_processes_share_a_shard_and_no_image_is_made_twice():
    def indices(rank):
        data = GenerationData(classes=["NV"], count=10, batch_size=2, shard=1, shards=2)
        data.trainer = rank
        return [int(index) for batch in data.predict_dataloader() for index in batch["index"]]

    assert sorted(index for part in at_once(indices) for index in part) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(("shard", "shards"), [(-1, 2), (2, 2), (0, 0), (0, 4)])
def test_a_shard_that_does_not_exist_or_would_be_empty_is_refused(shard, shards):
    with pytest.raises(InputError, match=rf"data\.shard: {shard} of {shards} shards and 3 images"):
        GenerationData(classes=["NV"], count=3, batch_size=1, shard=shard, shards=shards)


@pytest.mark.parametrize("count", [{"NV": 2}, {"NV": 0, "MEL": 0}, {"NV": -1, "MEL": 3}])
def test_counts_that_do_not_fit_the_classes_are_refused(count):
    with pytest.raises(InputError, match=r"data\.count"):
        GenerationData(classes=["NV", "MEL"], count=count, batch_size=2)


def test_a_prompt_with_an_unknown_field_is_refused():
    with pytest.raises(InputError, match=r"only \{token\} and \{lesion\}"):
        GenerationData(classes=["NV"], count=1, batch_size=1, prompt="a {colour} mole")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 10**12}, r"data\.count: 2,000,000,000,000 images are more than 1,000,000"),
        ({"batch_size": 0}, r"data\.batch_size: 0 must be from 1"),
        ({"token": ""}, r"data\.token: it is blank"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(options, said):
    with pytest.raises(InputError, match=said):
        GenerationData(**{"classes": ["NV", "MEL"], "count": 1, "batch_size": 2, **options})
