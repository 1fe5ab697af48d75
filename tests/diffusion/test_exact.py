"""Training is, bit for bit, the published algorithm: a plain loop of a few lines ends with the same weights.

The loop is diffusers' `train_dreambooth.py` without its data handling, whose faults `test_faults.py` lists.
"""

import pytest
import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor

from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.mixing.policies import PriorPreservation, RealOnly
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.parts import load_parts
from tests.builders import CLASSES
from tests.diffusion.test_dreambooth import trainer_of

STEPS, PRIOR_LOSS_WEIGHT = 6, 0.7


def optimizer(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)


def published(parts, micro_batches, prior, accumulate, train_text_encoder):
    """Train on `(x, ε, t, token ids)` as the reference does; instances and class images alternate in a batch."""
    parts.unet.train()
    trained = [*parts.unet.parameters()]
    if train_text_encoder:
        parts.text_encoder.train()
        trained += parts.text_encoder.parameters()
    adamw = optimizer(trained)
    for number, (x, eps, t, ids) in enumerate(micro_batches, start=1):
        h = parts.text_encoder(ids)[0]
        p = parts.unet(parts.scheduler.add_noise(x, eps, t), t, h).sample
        if prior:
            loss = F.mse_loss(p[0::2], eps[0::2]) + PRIOR_LOSS_WEIGHT * F.mse_loss(p[1::2], eps[1::2])
        else:
            loss = F.mse_loss(p, eps)
        (loss / accumulate).backward()
        if number % accumulate == 0:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adamw.step()
            adamw.zero_grad()


def draws(base, data, count):
    """What our module draws for its first batches: latents, noise, timesteps and token ids."""
    parts, numbers = load_parts(base), DreamBooth(base)
    parts.vae.requires_grad_(False)  # as in the reference; for weights that are not frozen torch rounds otherwise
    loader, drawn, epoch = data.train_dataloader(), [], 0
    while len(drawn) < count:
        loader.batch_sampler.set_epoch(epoch)
        for number, batch in enumerate(loader):
            generators = numbers._draws(epoch, number, len(batch["prompt"]))
            with torch.no_grad():
                posterior = parts.vae.encode(batch["pixel_values"]).latent_dist
            x = posterior.sample(generators) * parts.vae.config.scaling_factor
            eps = randn_tensor(x.shape, generators)
            t = torch.tensor([int(torch.randint(1000, (1,), generator=one)) for one in generators])
            drawn.append((x, eps, t, parts.tokenize(batch["prompt"])))
        epoch += 1
    return drawn[:count]


@pytest.mark.parametrize("train_text_encoder", [False, True], ids=["frozen text", "trained text"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("prior", [False, True], ids=["alone", "with prior"])
def test_training_ends_where_the_published_algorithm_ends(
    base,
    sets,
    tmp_path,
    prior,
    accumulate,
    train_text_encoder,
):
    def data():
        real, generated = sets
        # An epoch has six batches, so that an accumulation does not straddle its end.
        options = {"synthetic": [generated], "mix": PriorPreservation(), "batch_size": 4}
        if not prior:
            options = {"mix": RealOnly(), "batch_size": 2}
        return DreamBoothData(real=real, classes=CLASSES, size=16, **options)

    objective = Objective(prior_loss_weight=PRIOR_LOSS_WEIGHT)
    model = DreamBooth(base, train_text_encoder, objective=objective, optimizer=optimizer)
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 1.0, "limit_val_batches": 0}
    trainer = trainer_of(tmp_path, STEPS, **options)
    trainer.fit(model, data())
    assert trainer.global_step == STEPS

    parts, drawn = load_parts(base), data()
    parts.text_encoder.requires_grad_(train_text_encoder)
    drawn.setup("fit")
    published(parts, draws(base, drawn, STEPS * accumulate), prior, accumulate, train_text_encoder)
    untouched = load_parts(base)
    for name in ("unet", "text_encoder"):
        ours, theirs, before = (getattr(p, name).state_dict() for p in (model.parts, parts, untouched))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        changed = any(not torch.equal(ours[key], before[key]) for key in before)
        assert changed == (name == "unet" or train_text_encoder)


def test_every_option_of_the_objective_reaches_the_loss(base, sets, tmp_path):
    real, generated = sets
    weights = {"NV": 0.5, "MEL": 2.0, "SK": 1.0}
    objective = Objective(noise_offset=0.1, debiased=True, huber_delta=0.1, prior_loss_weight=weights)

    def data():
        mix = PriorPreservation()
        return DreamBoothData(real=real, synthetic=[generated], mix=mix, classes=CLASSES, size=16, batch_size=12)

    trainer = trainer_of(tmp_path, 1, limit_val_batches=0)
    trainer.fit(DreamBooth(base, objective=objective, optimizer=optimizer), data())

    parts, drawn = load_parts(base), data()
    drawn.setup("fit")
    batch = next(iter(drawn.train_dataloader()))
    generators = DreamBooth(base)._draws(0, 0, 12)
    with torch.no_grad():
        x = parts.vae.encode(batch["pixel_values"]).latent_dist.sample(generators) * parts.vae.config.scaling_factor
        eps = randn_tensor(x.shape, generators) + 0.1 * randn_tensor((12, 4, 1, 1), generators)
        t = torch.tensor([int(torch.randint(1000, (1,), generator=one)) for one in generators])
        h = parts.text_encoder(parts.tokenize(batch["prompt"]))[0]
        p = parts.unet(parts.scheduler.add_noise(x, eps, t), t, h).sample
    errors = (2 * 0.1 * (((p - eps) ** 2 + 0.01).sqrt() - 0.1)).mean(dim=(1, 2, 3))
    level = parts.scheduler.alphas_cumprod[t]
    errors = errors * ((1 - level) / level).sqrt()
    prior = torch.tensor([weights[CLASSES[label]] for label in batch["label"][1::2]])
    expected = errors[0::2].mean() + (prior * errors[1::2]).mean()
    assert batch["prior"].tolist() == [False, True] * 6
    assert len(prior.unique()) > 1
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(expected), rel=1e-4)
