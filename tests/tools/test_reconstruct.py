"""reconstruct: what the autoencoder alone costs, as a set that is mixed like a generated one."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from dermsynth.cli import main
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.sets import leaks, manifest
from dermsynth.diffusion.autoencoder import Autoencoder
from dermsynth.diffusion.reconstruction import reconstruct as through
from dermsynth.errors import InputError
from dermsynth.tools.reconstruct import reconstruct
from tests.builders import CLASSES, make_set
from tests.tools.test_export import fit


def decoded(vae, pixels):
    """The mean of the latents decoded, by the image processor of diffusers' pipelines; float `[H, W, 3]`."""
    image = VaeImageProcessor(vae_scale_factor=2).preprocess(Image.fromarray(pixels))
    with torch.no_grad():
        return vae.decode(vae.encode(image).latent_dist.mean).sample[0].permute(1, 2, 0).numpy()


def test_the_train_images_become_a_set(base, tmp_path, capsys):
    real = manifest.read(make_set(tmp_path / "real"))
    assert main(["reconstruct", str(real.root), "--base", base, "--out", str(tmp_path / "vae")]) == 0
    assert "12 train images through the autoencoder" in capsys.readouterr().out
    made = manifest.read(tmp_path / "vae")
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    photographs = {record.image_id: record for record in real.split("train")}
    assert len(made.records) == len(photographs) == 12
    for record in made.records:
        photograph = photographs[record.extra["reconstructed_from"]]
        assert (record.origin, record.split, record.source) == ("synthetic", "train", "vae")
        assert (record.diagnosis, record.group, record.license) == (photograph.diagnosis, photograph.group, "CC0-1.0")
        assert record.extra["train_split_sha256"] == manifest.train_split_sha256(real.records)
        with Image.open(made.path(record)) as image:
            assert b"trainedAlgorithmicMedia" in image.info["xmp"]
            pixels = np.asarray(image)
        expected = (decoded(vae, np.asarray(Image.open(real.path(photograph)))) + 1) * 127.5
        assert np.abs(pixels - expected.clip(0, 255)).max() < 0.51
        assert record.sha256 == manifest.sha256_file(made.path(record))
    info = json.loads((made.root / "dataset.json").read_text())
    assert info["command"] == "python -m dermsynth reconstruct real --base base --out vae"


def test_a_classifier_takes_it_like_a_generated_set_and_another_splits_does_not(base, tmp_path):
    real, other = make_set(tmp_path / "real"), make_set(tmp_path / "other", {"NV": 8, "MEL": 4})
    reconstruct(real, base, tmp_path / "vae")
    data = ClassificationData(real=real, classes=CLASSES, size=16, batch_size=4, synthetic=[tmp_path / "vae"])
    data.setup("fit")
    assert len(data.generated) == 12
    with pytest.raises(InputError, match="fitted on another train split"):
        leaks.check(manifest.read(other), [manifest.read(tmp_path / "vae")], [])


def test_sides_that_latents_do_not_have_are_continued_and_cut_off_again(base):
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    image = np.random.default_rng(0).integers(0, 255, (15, 18, 3), np.uint8)
    found = through(vae, image)
    assert found.shape == image.shape
    expected = (decoded(vae, np.concatenate([image, image[-1:]]))[:15] + 1) * 127.5
    assert np.abs(found - expected.clip(0, 255)).max() < 0.51


def test_a_checkpoints_own_autoencoder_is_used_and_not_one_of_other_patients(base, tmp_path):
    real, other = make_set(tmp_path / "real"), make_set(tmp_path / "other", {"NV": 8, "MEL": 4})
    model = {"class_path": "dermsynth.diffusion.autoencoder.Autoencoder", "init_args": {"base": base}}
    data = {"real": str(real), "classes": CLASSES, "size": 16, "batch_size": 4}
    checkpoint = fit(
        tmp_path, model, {"class_path": "dermsynth.data.loading.modules.ClassificationData", "init_args": data}
    )
    reconstruct(real, str(checkpoint), tmp_path / "vae")
    made = manifest.read(tmp_path / "vae")
    record = made.records[0]
    assert record.extra["checkpoint_sha256"] == manifest.sha256_file(checkpoint)
    trained = Autoencoder.load_from_checkpoint(checkpoint).vae.eval()
    photograph = np.asarray(Image.open(real / "images" / f"{record.extra['reconstructed_from']}.png"))
    expected = (decoded(trained, photograph) + 1) * 127.5
    found = np.asarray(Image.open(made.path(record)))
    assert np.abs(found - expected.clip(0, 255)).max() < 0.51
    untrained = decoded(AutoencoderKL.from_pretrained(base, subfolder="vae"), photograph)
    assert np.abs((untrained + 1) * 127.5 - expected).max() > 0.51
    with pytest.raises(InputError, match=r"--base: .*last\.ckpt was fitted on another train split"):
        reconstruct(other, str(checkpoint), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("change", [{"origin": "synthetic", "split": "train"}, {"split": "test"}])
def test_a_set_without_real_train_images_is_refused(base, tmp_path, change):
    with pytest.raises(InputError, match=r"other: expected a set of real images, some of them in train"):
        reconstruct(make_set(tmp_path / "other", **change), base, tmp_path / "vae")
