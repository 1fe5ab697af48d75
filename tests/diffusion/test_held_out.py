from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer

from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.held_out import TIMESTEPS, HeldOutLoss, image_generator, image_timesteps
from tests.builders import CLASSES, make_set
from tests.processes import PROCESSES, TIMEOUT, start


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("sets") / "real", {"NV": 12, "MEL": 8, "SK": 8})


def validate(base, real, batch_size, **options):
    trainer = Trainer(
        **options,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = DreamBoothData(real=real, classes=CLASSES, size=16, batch_size=batch_size)
    return trainer.validate(DreamBooth(base), data, verbose=False)[0]


def test_the_loss_is_the_mean_over_the_images_of_an_independent_computation(base, real):
    """Each image alone, in diffusers' own words."""
    found = validate(base, real, 4)
    model = DreamBooth(base).eval()
    parts, scheduler = model.parts, model.parts.scheduler
    data = DreamBoothData(real=real, classes=CLASSES, size=16, batch_size=1)
    data.setup("validate")
    losses = {name: [] for name in CLASSES}
    for batch in data.val_dataloader():
        with torch.no_grad():
            generator = image_generator(batch["image_id"][0])
            posterior = parts.vae.encode(batch["pixel_values"]).latent_dist
            x = (posterior.mean + posterior.std * torch.randn(1, 4, 8, 8, generator=generator)) * 0.5
            h = parts.text_encoder(parts.tokenize(batch["prompt"]))[0]
            first = int(torch.randint(1000, (), generator=generator))
            errors = []
            for part in range(TIMESTEPS):
                t = torch.tensor([250 * part + first // 4])
                eps = torch.randn(1, 4, 8, 8, generator=generator)
                errors.append((parts.unet(scheduler.add_noise(x, eps, t), t, h).sample - eps).square().mean())
        losses[CLASSES[batch["label"]]].append(float(sum(errors)) / TIMESTEPS)
    means = {name: sum(values) / len(values) for name, values in losses.items()}
    assert [len(values) for values in losses.values()] == [3, 2, 2]
    expected = {f"val/loss/{name}": value for name, value in means.items()}
    expected["val/loss_balanced"] = sum(means.values()) / 3
    expected["val/loss"] = sum(sum(values) for values in losses.values()) / 7
    assert found == pytest.approx(expected, rel=1e-5)


def test_batches_make_no_difference(base, real):
    alone = validate(base, real, 1)
    assert len(alone) == 5
    for batch_size in (2, 7):
        assert validate(base, real, batch_size) == pytest.approx(alone, rel=1e-5)


def validate_as_rank(rank, base, real, results):
    results.put((rank, validate(base, real, 2, devices=2, strategy="ddp")))


def test_ranks_make_no_difference(base, real):
    """Of seven images, one process takes four and the other three."""
    results = PROCESSES.SimpleQueue()
    processes = start(validate_as_rank, 2, base, real, results)
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode == 0
    by_rank = dict(results.get() for _ in processes)
    assert by_rank[0] == by_rank[1]
    assert by_rank[0] == pytest.approx(validate(base, real, 2), rel=1e-5)


def test_a_class_without_a_held_out_image_is_left_out():
    loss = HeldOutLoss(CLASSES, torch.device("cpu"))
    loss.add(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]))
    means = {name: float(value) for name, value in loss.means(lambda sums, reduce_op: sums).items()}
    assert means == {"loss": 3.0, "loss/NV": 2.0, "loss/SK": 5.0, "loss_balanced": 3.5}


@pytest.mark.parametrize("length", [1000, 50, 7])
def test_timesteps_are_spread_over_the_schedule_and_each_is_as_likely(length):
    draws = [image_generator(f"ISIC_{number:07d}") for number in range(4000)]
    timesteps = image_timesteps(length, draws)
    assert timesteps.shape == (TIMESTEPS, 4000)
    assert timesteps.min() == 0
    assert timesteps.max() == length - 1
    apart = timesteps.diff(dim=0).float()
    assert (apart - length / TIMESTEPS).abs().max() < 1
    counts = torch.bincount(timesteps.flatten(), minlength=length).float()
    mean = TIMESTEPS * 4000 / length
    assert (counts - mean).abs().max() < 6 * mean**0.5


def test_an_images_draws_depend_on_its_id_alone(base):
    one, same, other = (torch.randn(4, generator=image_generator(name)) for name in ("a", "a", "b"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    model = DreamBooth(base)
    model._trainer = SimpleNamespace(global_rank=1)
    noise = model._randn_like(torch.empty(2, 4), [image_generator("b"), image_generator("a")])
    assert torch.equal(noise, torch.stack([other, one]))
