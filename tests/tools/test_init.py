import pytest

from dermsynth.diffusion.parts import load_parts
from dermsynth.errors import InputError
from dermsynth.tools.init import init
from tests.builders import make_configs


def test_it_makes_a_pipeline_that_knows_the_words_of_every_diagnosis(tmp_path, capsys):
    init(make_configs(tmp_path / "configs"), tmp_path / "out", seed=3)
    assert "untrained pipeline" in capsys.readouterr().out
    parts = load_parts(str(tmp_path / "out"))
    assert parts.tokenizer.tokenize("melanoma keratosis") == ["melanoma</w>", "keratosis</w>"]
    with pytest.raises(InputError, match="it exists already"):
        init(tmp_path / "configs", tmp_path / "out")


def test_a_seed_below_0_is_refused(tmp_path):
    with pytest.raises(InputError, match="--seed -1: expected 0 or more"):
        init(make_configs(tmp_path / "configs"), tmp_path / "out", seed=-1)


def test_a_folder_without_a_pipeline_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no model_index\.json"):
        init(tmp_path, tmp_path / "out")
