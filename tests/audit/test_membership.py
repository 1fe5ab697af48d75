from dataclasses import replace

import numpy as np
import pytest
import torch

from dermsynth.audit.membership import attack, losses, memberships
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.sets import manifest
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.errors import InputError
from tests.audit.memorised import make_base_of_clear_latents, make_coloured_set
from tests.audit.runs import TWO_CLASSES, generator
from tests.builders import make_set


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Ten images to train on and ten that are held out."""
    return make_coloured_set(tmp_path_factory.mktemp("sets") / "real", {"NV": 12, "MEL": 8})


@pytest.fixture(scope="module")
def clear_base(tmp_path_factory):
    return make_base_of_clear_latents(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def overtrained(tmp_path_factory, clear_base, real):
    """The checkpoint of a model that saw the same ten images 300 times."""
    return generator(tmp_path_factory.mktemp("runs") / "long", clear_base, real, 300, 1e-3)


@pytest.mark.slow
def test_a_model_trained_far_too_long_on_ten_images_is_found_out(overtrained, real):
    (found,) = memberships([overtrained], real)
    assert (found.checkpoint, found.step, found.known_to_base) == ("long/last.ckpt", 300, 0)
    assert found.overall.auroc.value > 0.9
    assert found.overall.auroc.low > 0.7
    assert found.overall.found.value > 0.5
    assert found.overall.by_base.low < 0.5 < found.overall.by_base.high
    assert {name: (a.train, a.held_out) for name, a in found.classes.items()} == {"NV": (6, 6), "MEL": (4, 4)}
    assert all(a.auroc.value > 0.9 for a in found.classes.values())


@pytest.mark.slow
def test_it_finds_nothing_in_images_that_the_overtrained_model_never_saw(overtrained, tmp_path):
    """What it says of the ten images is no property of any other two samples of such images."""
    others = make_coloured_set(tmp_path / "others", {"NV": 100, "MEL": 100})
    data = DreamBoothData(real=others, classes=TWO_CLASSES, size=16, batch_size=4)
    data.setup("validate")
    samples = [s for name in ("train", "val", "test") for s in data.samples[name] if s.record.image_id > "r_NV_006"]
    samples = samples[len(samples) % 2 :]
    module = DreamBooth.load_from_checkpoint(overtrained)
    before = losses(DreamBooth(module.parts.base).eval(), data, samples, "base")
    half = np.random.default_rng(0).permutation(len(samples)) < len(samples) // 2
    found = attack(samples, half, before, losses(module, data, samples, "module"))
    assert found.auroc.low < 0.5 < found.auroc.high
    assert found.auroc.high - found.auroc.low < 0.3


def test_the_untouched_base_is_at_one_half(clear_base, real, tmp_path):
    checkpoint = generator(tmp_path / "untouched", clear_base, real, 1, 0.0)
    (found,) = memberships([checkpoint], real)
    for one in (found.overall, *found.classes.values()):
        assert one.auroc.low <= 0.5 <= one.auroc.high
        assert one.auroc.value == pytest.approx(0.5)
        assert one.found.value == 0
    with pytest.raises(InputError, match=r"last.ckpt: it was fitted on another train split .* as --real"):
        memberships([checkpoint], make_set(tmp_path / "other", {"NV": 4, "MEL": 4}))


def test_images_that_the_base_knows_are_counted(clear_base, real, tmp_path, monkeypatch):
    checkpoint = generator(tmp_path / "untouched", clear_base, real, 1, 0.0)
    known = [r.image_id for r in manifest.read(real).split("train")][:3]
    of_configuration = DreamBooth.of_configuration.__func__

    def knowing(cls, config, **changes):
        module = of_configuration(cls, config, **changes)
        module.parts.provenance["train_images"] = known
        return module

    monkeypatch.setattr(DreamBooth, "of_configuration", classmethod(knowing))
    assert memberships([checkpoint], real)[0].known_to_base == 3


def test_losses_are_those_of_the_validation_and_must_be_finite(clear_base, real):
    data = DreamBoothData(real=real, classes=TWO_CLASSES, size=16, batch_size=5)
    data.setup("validate")
    module = DreamBooth(clear_base).eval()
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        expected = module.held_out_losses(batch)
    found = losses(module, data, data.samples["val"], "base")
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    with torch.no_grad():
        module.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="the denoising loss of an image is not a number"):
        losses(module, data, data.samples["val"], "base")


def test_patients_are_drawn_whole(real):
    """With all images of a side of one patient, the interval is wider than with each its own."""
    data = DreamBoothData(real=real, classes=TWO_CLASSES, size=16, batch_size=4)
    data.setup("validate")
    samples = [s for name in ("train", "val", "test") for s in data.samples[name]]
    few = [s._replace(record=replace(s.record, group=f"{n < 10}{n % 2}")) for n, s in enumerate(samples)]
    train, rng = np.arange(20) < 10, np.random.default_rng(0)
    before, after = rng.normal(size=20), rng.normal(size=20) + 0.8 * np.tile([0, 1], 10)
    alone, together = (attack(some, train, before, after) for some in (samples, few))
    assert (alone.held_out_patients, together.held_out_patients) == (10, 2)
    assert alone.auroc.value == together.auroc.value
    assert alone.auroc != together.auroc
