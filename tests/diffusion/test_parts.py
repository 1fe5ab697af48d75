import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from dermsynth.diffusion.parts import build_parts, load_parts, tensors_sha256, train_tokenizer
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
    # As in published files, whatever the version of transformers that wrote it.
    assert all(key.startswith("text_model.") for key in load_file(Path(base) / "text_encoder/model.safetensors"))


def test_the_seed_decides_the_weights(tmp_path):
    configs = make_configs(tmp_path)
    one, same, other = (build_parts(configs, ["melanoma"], seed=seed) for seed in (1, 1, 2))
    hashes = [[tensors_sha256(part.state_dict().values()) for part in (p.unet, p.vae)] for p in (one, same, other)]
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


def test_the_small_tokenizer_is_the_same_each_time():
    texts = ["a dermoscopic image of melanoma", "an image of a naïve nevus, 5 mm"]
    first, *others = (train_tokenizer(texts).backend_tokenizer.to_str() for _ in range(4))
    assert set(others) == {first}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", r"no folder '\./nowhere'\. Give a Stable Diffusion"),
        ("/nowhere/at/all", "no folder '/nowhere/at/all'"),
        ("nowhere", "no folder 'nowhere'"),
        ("tests/tiny-bsae", "there is a folder tests here, but no tiny-bsae in it"),
    ],
)
def test_a_missing_base_is_said_plainly_and_without_network(name, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("network"))
    with pytest.raises(InputError, match=message):
        load_parts(name)


def test_a_recipes_hub_id_beside_its_download_is_explained(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stable-diffusion-v1-5").symlink_to(base)
    with pytest.raises(InputError, match=r"give --model\.base stable-diffusion-v1-5\."):
        load_parts("stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert load_parts("stable-diffusion-v1-5").base == "stable-diffusion-v1-5"


def test_a_base_in_the_home_folder_is_found(base, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(base).parent))
    parts = load_parts(f"~/{Path(base).name}")
    assert parts.base == f"~/{Path(base).name}"
    assert tensors_sha256(parts.unet.parameters()) == tensors_sha256(load_parts(base).unet.parameters())


@pytest.mark.parametrize("keep", [0, 100])
@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "dermsynth.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_a_file_that_was_cut_is_an_error_of_the_input(base, tmp_path, name, keep):
    folder = shutil.copytree(base, tmp_path / "copy")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: min(keep, len(whole) - 3)])
    part = name.rpartition("/")[0]
    looked_at_first = not part or name.endswith("/config.json")
    said = f"{folder}/{name}: not JSON" if looked_at_first else f"the {part} of {folder} could not be loaded: "
    with pytest.raises(InputError, match=re.escape(said)):
        load_parts(str(folder))


def test_a_base_without_its_words_is_refused(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "copy")
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/vocab.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer has neither"):
        load_parts(str(folder))


@pytest.mark.parametrize("name", ["text_encoder/config.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_broken_configuration_is_an_error_of_the_input(tmp_path, name):
    configs = make_configs(tmp_path / "configs")
    (configs / name).write_text('{"sample_size": ')
    with pytest.raises(InputError, match=rf"{re.escape(str(configs))} could not be loaded: \w"):
        build_parts(configs, [])
