import gc
import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from callbacks.ema import EMA
from callbacks.sample_grid import SampleGrid
from dermsynth.data.loading.generation import GenerationData
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.mixing.policies import PriorPreservation
from dermsynth.diffusion import dreambooth
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError
from tests.builders import CLASSES


def data_of(sets, **options):
    real, prior = sets
    options = {"batch_size": 4, "mix": PriorPreservation(), **options}
    return DreamBoothData(real=real, synthetic=[prior], classes=CLASSES, size=16, **options)


def trainer_of(folder, steps, callbacks=(), **options):
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )


def draws_of(batch):
    """Random numbers for a step."""
    return [torch.Generator().manual_seed(number) for number, _ in enumerate(batch["prompt"])]


def optimizer(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


@pytest.mark.parametrize("text_encoder", [False, True])
@pytest.mark.parametrize("lora", [None, LoRA(rank=2, alpha=2)])
def test_only_what_is_trained_changes_and_only_that_is_saved(base, sets, tmp_path, text_encoder, lora):
    model = DreamBooth(base, train_text_encoder=text_encoder, lora=lora, optimizer=optimizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trainer_of(tmp_path, 2, limit_val_batches=0)
    trainer.fit(model, data_of(sets))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert changed
    assert changed <= set(saved["state_dict"])
    assert any(name.startswith("text_encoder") for name in saved["state_dict"]) == text_encoder
    assert all(("lora_" in name) == bool(lora) for name in saved["state_dict"])
    assert not any(name.startswith("vae") for name in saved["state_dict"])
    if lora:
        # The second of the two low-rank factors starts at zero: a fresh adapter changes nothing.
        assert all(not before[name].any() for name in before if "lora_B" in name)
    assert saved["dermsynth"]["data"]["train_split_sha256"] == trainer.datamodule.train_split_sha256


def test_a_checkpoint_of_adapters_is_a_small_file(base, sets, tmp_path):
    sizes = {}
    for name, lora in (("full", None), ("lora", LoRA(rank=1, targets=["to_q"]))):
        model = DreamBooth(base, lora=lora, optimizer=optimizer)
        trainer = trainer_of(tmp_path, 1, limit_val_batches=0)
        trainer.fit(model, data_of(sets))
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        sizes[name] = (tmp_path / f"{name}.ckpt").stat().st_size
        weights = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
        # AdamW keeps two averages of each weight. 1.5 KB a tensor, of which there are three a weight, and 10 KB beside.
        assert 3 * weights < sizes[name] < 3 * weights + 4_500 * len(model.trained) + 10_000
    assert sizes["lora"] < sizes["full"] / 10


def test_training_stops_early_when_the_held_out_loss_gets_no_better(base, sets, tmp_path):
    # So high a rate makes the model worse at once.
    model = DreamBooth(base, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=10.0))
    stop = EarlyStopping("val/loss", patience=2, check_finite=False)
    trainer = trainer_of(tmp_path, 50, [stop], val_check_interval=1)
    trainer.fit(model, data_of(sets))
    assert 3 <= trainer.global_step < 50
    assert stop.wait_count == 2


def test_the_held_out_loss_is_that_of_the_averaged_weights(base, sets, tmp_path):
    model = DreamBooth(base, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    live, average = {}, EMA(decay=0.9)

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            live.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    trainer = trainer_of(tmp_path, 5, [average, Watch()], val_check_interval=5)
    trainer.fit(model, data_of(sets))
    logged = float(trainer.callback_metrics["val/loss"])

    def loss():
        (found,) = trainer_of(tmp_path, 1).validate(model, data_of(sets), verbose=False)
        return found["val/loss"]

    assert loss() == pytest.approx(logged, rel=1e-6)  # after training the module holds the average
    model.load_state_dict(live)
    assert abs(loss() - logged) > 1e-4 * logged


# 12 instance images, so an epoch of 24 in batches of 4 is 6 steps: stopped inside the second, at its end, and with
# epochs cut to 4 steps.
@pytest.mark.parametrize(
    ("stop", "averaged", "limit"), [(8, False, 1.0), (8, True, 1.0), (6, False, 1.0), (6, False, 4), (8, False, 4)]
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(base, sets, tmp_path, stop, averaged, limit):
    def run(folder, ckpt_path=None):
        model = DreamBooth(base, optimizer=optimizer)
        callbacks = [ModelCheckpoint(folder, "step", every_n_train_steps=stop, save_top_k=-1)]
        callbacks += [EMA(decay=0.9)] if averaged else []
        trainer = trainer_of(tmp_path, 11, callbacks, limit_val_batches=0, limit_train_batches=limit)
        trainer.fit(model, data_of(sets), ckpt_path=ckpt_path, weights_only=True)
        return model

    straight = run(tmp_path / "one")
    resumed = run(tmp_path / "two", tmp_path / "one/step.ckpt")
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_base_is_hashed_once_before_the_first_step_and_only_for_checkpoints(base, sets, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(dreambooth, "base_sha256", lambda name: hashed.append(name) or "hash")

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            assert hashed == [base]

    checkpoints = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = trainer_of(tmp_path, 3, [Watch(), checkpoints], limit_val_batches=0)
    trainer.fit(DreamBooth(base, optimizer=optimizer), data_of(sets))
    assert len(list(tmp_path.glob("*.ckpt"))) == 3
    assert hashed == [base]
    trainer_of(tmp_path, 1).validate(DreamBooth(base), data_of(sets), verbose=False)
    assert hashed == [base]
    trainer_of(tmp_path, 1).validate(DreamBooth(base), data_of(sets), tmp_path / "step=1.ckpt", verbose=False)
    assert hashed == [base, base]


def test_checkpoints_of_another_base_or_kind_are_refused(base, sets, tmp_path):
    model = DreamBooth(base, optimizer=optimizer)
    trainer = trainer_of(tmp_path, 1, limit_val_batches=0)
    trainer.fit(model, data_of(sets))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    with pytest.raises(InputError, match="made with lora None"):
        trainer_of(tmp_path, 2).fit(
            DreamBooth(base, lora=LoRA(), optimizer=optimizer), data_of(sets), ckpt_path=tmp_path / "c.ckpt"
        )
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    for change, message in (
        ({"prediction_type": "v_prediction"}, "made with prediction_type 'v_prediction'"),
        ({"kind": "classifier"}, "one of a classifier; expected one of a dreambooth"),
        ({"base_sha256": "0"}, "made on another base"),
    ):
        with pytest.raises(InputError, match=message):
            model.on_load_checkpoint({**saved, "dermsynth": {**saved["dermsynth"], **change}})
    model.on_load_checkpoint({**saved, "dermsynth": {**saved["dermsynth"], "base": "the same, elsewhere"}})
    fewer = dict(list(saved["state_dict"].items())[1:])
    with pytest.raises(InputError, match="one of another network"):
        model.on_load_checkpoint({**saved, "state_dict": fewer})
    with pytest.raises(InputError, match="not written by dermsynth"):
        model.on_load_checkpoint({"state_dict": {}})


def test_a_base_that_saw_another_train_split_is_refused(base, sets, tmp_path):
    model = DreamBooth(base, optimizer=optimizer)
    model.parts.provenance["train_split_sha256"] = "0" * 64
    with pytest.raises(InputError, match="fitted on another train split"):
        trainer_of(tmp_path, 1, limit_val_batches=0).fit(model, data_of(sets))


def test_a_checkpoint_that_saw_another_train_split_is_refused(base, sets, tmp_path):
    trainer = trainer_of(tmp_path, 1, limit_val_batches=0)
    trainer.fit(DreamBooth(base, optimizer=optimizer), data_of(sets))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    saved["dermsynth"]["data"]["train_split_sha256"] = "0" * 64
    torch.save(saved, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="the checkpoint was fitted on another train split"):
        trainer_of(tmp_path, 2, limit_val_batches=0).fit(
            DreamBooth(base, optimizer=optimizer), data_of(sets), ckpt_path=tmp_path / "foreign.ckpt"
        )


def test_noise_differs_between_samples_steps_epochs_and_seeds_and_not_by_the_number_of_ranks(base):
    def noise(epoch, batch, count, rank=0, seed=0):
        model = DreamBooth(base, seed=seed)
        model._trainer = SimpleNamespace(global_rank=rank)
        return [torch.randn(8, generator=one) for one in model._draws(epoch, batch, count)]

    alone = noise(0, 0, 4)
    shared = [*noise(0, 0, 2), *noise(0, 0, 2, rank=1)]
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))
    others = [*alone, *noise(0, 1, 1), *noise(1, 0, 1), *noise(0, 0, 1, seed=1)]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(others, 2))


def test_held_out_loss_is_the_same_at_every_validation(base, sets, tmp_path):
    model = DreamBooth(base)
    trainer = trainer_of(tmp_path, 1)
    first = trainer.validate(model, data_of(sets), verbose=False)
    torch.randn(100)
    assert trainer.validate(model, data_of(sets), verbose=False) == first


def test_velocity_and_caption_dropout_reach_the_loss(base, sets):
    data = data_of(sets)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    noise = DreamBooth(base)
    velocity = DreamBooth(base, objective=Objective(prediction_type="v_prediction"))
    p, wanted, _ = noise._denoise(batch, draws_of(batch))
    q, wanted_v, _ = velocity._denoise(batch, draws_of(batch))
    assert torch.equal(p, q)
    assert F.mse_loss(wanted, wanted_v) > 0.1
    assert velocity.parts.scheduler.config.prediction_type == "v_prediction"
    prompts = []
    dropping = DreamBooth(base, objective=Objective(caption_dropout=0.5))
    dropping.parts.tokenize = lambda texts: (prompts.extend(texts), noise.parts.tokenize(texts))[1]
    dropping.log = lambda *a, **k: None
    dropping._trainer = type("T", (), {"current_epoch": 0, "global_rank": 0, "log_every_n_steps": 0})()
    for number in range(30):
        dropping.training_step(batch, number)
    assert 0.3 < prompts.count("") / len(prompts) < 0.7


def test_min_snr_weighs_each_sample_of_the_batch(base, sets):
    data = data_of(sets)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    losses = []
    for gamma in (None, 1e9, 5.0):
        model = DreamBooth(base, objective=Objective(snr_gamma=gamma))
        model.log = lambda *a, **k: None
        model._trainer = type("T", (), {"current_epoch": 0, "global_rank": 0, "log_every_n_steps": 0})()
        losses.append(float(model.training_step(batch, 0)))
        prediction, wanted, timesteps = model._denoise(batch, model._draws(0, 0, 4))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    levels = model.alphas_cumprod[timesteps]
    weights = (levels / (1 - levels)).clamp(max=5) * (1 - levels) / levels
    errors = (prediction - wanted).square().mean(dim=(1, 2, 3)) * weights
    assert losses[2] == pytest.approx(float(errors[0::2].mean() + errors[1::2].mean()), rel=1e-5)
    with pytest.raises(InputError, match=r"model\.objective\.snr_gamma: 0 must be above 0"):
        DreamBooth(base, objective=Objective(snr_gamma=0))


def test_gradient_checkpointing_gives_the_same_gradients(base, sets):
    data = data_of(sets)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    gradients = []
    for checkpointing in (False, True):
        model = DreamBooth(base, gradient_checkpointing=checkpointing, train_text_encoder=True)
        model.unet.train()
        model.text_encoder.train()
        p, wanted, _ = model._denoise(batch, draws_of(batch))
        F.mse_loss(p, wanted).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 50
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_half_precision_weights_train_with_float32_noise_levels(base, sets, tmp_path):
    model = DreamBooth(base, optimizer=optimizer)
    trainer = trainer_of(tmp_path, 1, limit_val_batches=1, precision="bf16-true")
    trainer.fit(model, data_of(sets))
    assert model.unet.dtype == torch.bfloat16
    assert model.alphas_cumprod.dtype == torch.float32
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.parametrize("stage", ["training", "validation"])
def test_half_precision_weights_train_with_noise_that_was_drawn_in_float32(base, sets, tmp_path, monkeypatch, stage):
    """Under bf16-true Lightning makes bfloat16 the default type; noise of it would have 256 steps between 1 and 2."""
    seen = {"training": [], "validation": []}
    add_noise = dreambooth.add_noise

    def spied(alphas_cumprod, latents, noise, timesteps):
        seen["training" if torch.is_grad_enabled() else "validation"].append(noise)
        return add_noise(alphas_cumprod, latents, noise, timesteps)

    monkeypatch.setattr(dreambooth, "add_noise", spied)
    objective = Objective(noise_offset=0.1, caption_dropout=0.5)
    model = DreamBooth(base, optimizer=optimizer, objective=objective)
    trainer_of(tmp_path, 1, limit_val_batches=1, val_check_interval=1, precision="bf16-true").fit(model, data_of(sets))
    assert seen[stage]
    for noise in seen[stage]:
        assert noise.dtype == torch.float32
        assert not torch.equal(noise, noise.bfloat16().float())


def test_what_is_let_go_after_sampling_is_not_held_by_the_sampler(base):
    model = DreamBooth(base, sampling=Sampling(1, 1.0))
    image = model.sample(["melanoma"], [1])
    vae = weakref.ref(model.parts.vae)
    model.encoders.release()
    gc.collect()
    assert vae() is None
    assert (model.sample(["melanoma"], [1]) == image).all()


def test_a_token_that_was_not_taught_is_refused(base, sets, tmp_path):
    generation = GenerationData(classes=["NV"], count=1, batch_size=1, token="zyq")
    model = DreamBooth(base, sampling=Sampling(1, 1.0))
    with pytest.raises(InputError, match="asks for the token 'zyq', which was not taught"):
        trainer_of(tmp_path, 1).predict(model, generation)
    data = data_of(sets, token="zyq")
    data.setup("fit")
    model.provenance = data.provenance
    assert len(trainer_of(tmp_path, 1).predict(model, generation)) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token": "sks " * 90}, r"data\.instance_prompt: 'a dermoscopic image of sks"),
        ({"class_prompt": "a photograph " * 30 + "of {lesion}"}, r"data\.class_prompt: 'a photograph"),
    ],
)
def test_a_prompt_that_would_be_cut_is_refused_before_the_first_step(base, sets, tmp_path, options, said):
    trainer = trainer_of(tmp_path, steps=1)
    with pytest.raises(InputError, match=said):
        trainer.fit(DreamBooth(base), data_of(sets, **options))
    assert trainer.global_step == 0


def test_a_prompt_that_would_be_cut_is_not_generated_and_not_shown(base, sets, tmp_path):
    long = "a photograph " * 30 + "of {lesion}"
    with pytest.raises(InputError, match=r"data\.prompt: 'a photograph"):
        trainer_of(tmp_path, steps=1).predict(
            DreamBooth(base), GenerationData(classes=["NV"], count=1, batch_size=1, prompt=long)
        )
    with pytest.raises(InputError, match=r"SampleGrid\.prompts: 'a photograph"):
        trainer_of(tmp_path, 1, [SampleGrid([long], every_n_steps=1)]).fit(DreamBooth(base), data_of(sets))
