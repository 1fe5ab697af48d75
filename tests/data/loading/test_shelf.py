import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from dermsynth.data.loading.shelf import Shelf
from dermsynth.errors import InputError


def shelf(folder, **made_by):
    return Shelf(folder, "moments", made_by or {"vae": "one"})


def test_tensors_are_found_by_name_in_whatever_file(tmp_path):
    values = torch.randn(5, 2, 3).half()
    shelf(tmp_path).add(["a", "b"], values[:2])
    shelf(tmp_path).add(["c d", "é"], values[2:4])
    other = shelf(tmp_path)
    for index, name in enumerate(["a", "b", "c d", "é"]):
        found = other[other.find([name])[0]]
        assert torch.equal(found, values[index])
        assert found.dtype == torch.float16
    assert other.missing(["z", "a", "y", "z"]) == ["z", "y"]
    assert other.find(["z"]).tolist() == [[-1, -1]]
    assert other.find([]).shape == (0, 2)
    assert other.places(["b", "é"]).tolist() == other.find(["b", "é"]).tolist()


def test_a_tensor_that_is_not_there_is_never_read_as_another(tmp_path):
    shelf(tmp_path).add(["a", "b"], torch.randn(2, 3))
    with pytest.raises(InputError, match=r"data\.latent_cache: .* lost 1 of 2 entries, such as 'z'\. .*same command"):
        shelf(tmp_path).places(["a", "z"])


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"names": "a, b"}])
def test_a_file_of_another_program_is_passed_over(tmp_path, metadata):
    one = shelf(tmp_path)
    one.add(["a"], torch.ones(1, 3))
    save_file({"values": torch.zeros(2, 3)}, one.folder / "0.safetensors", metadata)
    two = shelf(tmp_path)
    assert two.missing(["a", "b"]) == ["b"]
    assert torch.equal(two[two.find(["a"])[0]], torch.ones(3))


def test_places_stay_when_more_is_added(tmp_path):
    mine = shelf(tmp_path)
    mine.add(["m"], torch.ones(1, 2))
    place = mine.find(["m"])[0]
    for name in "abcdefgh":  # some of these files sort before the first
        shelf(tmp_path).add([name], torch.zeros(1, 2))
    assert mine.missing(["a", "h", "m"]) == []
    assert torch.equal(mine[place], torch.ones(2))
    assert torch.equal(mine[mine.find(["m"])[0]], torch.ones(2))


def test_another_maker_is_another_shelf(tmp_path):
    shelf(tmp_path, vae="one", size=8).add(["a"], torch.ones(1))
    assert shelf(tmp_path, vae="one", size=8).missing(["a"]) == []
    assert shelf(tmp_path, vae="two", size=8).missing(["a"]) == ["a"]
    assert shelf(tmp_path, vae="one", size=9).missing(["a"]) == ["a"]


@pytest.mark.parametrize("left", [0, 4, 60, -1])
def test_a_file_that_was_cut_counts_as_missing_and_is_written_again(tmp_path, left):
    one = shelf(tmp_path)
    one.add(["a"], torch.ones(1, 50))
    (file,) = one.folder.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    two = shelf(tmp_path)
    assert two.missing(["a"]) == ["a"]
    two.add(["a"], torch.ones(1, 50))
    assert torch.equal(two[two.find(["a"])[0]], torch.ones(50))
    assert len(list(two.folder.iterdir())) == 1


def test_what_a_reader_does_to_a_tensor_leaves_the_file_alone(tmp_path):
    one = shelf(tmp_path)
    one.add(["a"], torch.ones(1, 4))
    one[one.find(["a"])[0]].zero_()
    two = shelf(tmp_path)
    assert torch.equal(two[two.find(["a"])[0]], torch.ones(4))


def test_a_pickled_one_is_small_and_opens_the_files_again(tmp_path):
    one = shelf(tmp_path)
    one.add(["a"], torch.ones(1, 100_000))
    place = one.find(["a"])[0]
    assert one[place].sum() == 100_000
    sent = pickle.dumps(one)
    assert len(sent) < 2_000
    assert pickle.loads(sent)[place].sum() == 100_000


def test_other_programs_can_read_it(tmp_path):
    from safetensors import safe_open

    one = shelf(tmp_path)
    one.add(["a", "b"], torch.arange(2.0))
    (file,) = one.folder.iterdir()
    with safe_open(file, "np") as content:
        assert json.loads(content.metadata()["names"]) == ["a", "b"]
        assert content.get_tensor("values").tolist() == [0, 1]


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"numbers that torch\.float16 cannot hold"):
        shelf(tmp_path).add(["a"], torch.tensor([1e5]).half())
    assert not shelf(tmp_path).folder.exists()
