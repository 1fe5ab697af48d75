import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from dermsynth.diffusion.parts import build_parts, load_parts, tensors_sha256
from dermsynth.errors import InputError
from tests.builders import make_configs

TINY = Path(__file__).parents[2] / "configs/tiny/stable-diffusion"


def test_a_saved_pipeline_is_read_back_by_us_and_by_diffusers(base):
    parts = load_parts(base)
    theirs = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    for name in ("unet", "vae", "text_encoder"):
        ours, other = getattr(parts, name).state_dict(), getattr(theirs, name).state_dict()
        assert ours.keys() == other.keys()
        assert all(torch.equal(ours[key], other[key]) for key in ours)
    prompt = "a dermoscopic image of melanoma"
    length = theirs.tokenizer.model_max_length
    expected = theirs.tokenizer([prompt], padding="max_length", max_length=length, return_tensors="pt").input_ids
    assert torch.equal(parts.tokenize([prompt]), expected)
    assert not list(Path(base).rglob("*.bin"))


def test_the_seed_decides_the_weights(tmp_path):
    configs = make_configs(tmp_path)
    one, same, other = (build_parts(configs, ["melanoma"], seed=seed) for seed in (1, 1, 2))
    hashes = [[tensors_sha256(part.state_dict()) for part in (p.unet, p.vae)] for p in (one, same, other)]
    assert hashes[0] == hashes[1]
    assert hashes[0][0] != hashes[2][0]
    assert hashes[0][1] != hashes[2][1]


def test_the_small_tokenizer_knows_its_words_and_spells_others():
    parts = build_parts(TINY, ["a dermoscopic image of melanoma"])
    tokens = parts.tokenizer.tokenize("a dermoscopic image of zyq melanoma")
    assert tokens[:4] == ["a</w>", "dermoscopic</w>", "image</w>", "of</w>"]
    assert tokens[-1] == "melanoma</w>"
    ids = parts.tokenize(["of zyq melanoma", "of qzy melanoma"])
    assert ids.shape == (2, 77)
    assert not torch.equal(ids[0], ids[1])
    assert parts.text_encoder.config.vocab_size == len(parts.tokenizer)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "neither a folder nor a hub id"),
        ("/nowhere/at/all", "neither a folder nor a hub id"),
        ("nowhere", "neither a folder nor a hub id"),
        ("tests/tiny-bsae", "neither a folder nor a hub id"),
    ],
)
def test_a_missing_base_is_said_plainly_and_without_network(name, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("network"))
    with pytest.raises(InputError, match=message):
        load_parts(name)


def test_an_unknown_hub_id_is_said_plainly_when_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"model\.base: someone/something could not be loaded"):
        load_parts("someone/something")


def test_another_kind_of_pipeline_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(InputError, match="is a StableDiffusionXLPipeline"):
        load_parts(str(tmp_path))
    with pytest.raises(InputError, match=r"no model_index\.json"):
        load_parts(str(tmp_path.parent))
