from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from lightning import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from callbacks.ema import EMA
from callbacks.shown_images import ShownImages
from callbacks.throughput import Throughput
from dermsynth.diffusion import dreambooth
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.speed import compile_blocks, to_device
from dermsynth.errors import InputError
from dermsynth.run import ranks
from dermsynth.run.checkpoints import clip_gradients
from dermsynth.run.ranks import mean_if_logged, mean_over_ranks
from tests.builders import CLASSES
from tests.diffusion.test_dreambooth import data_of, trainer_of
from tests.pretended_gpu import GPU, Copies, fit_on_pretended_gpu
from tests.processes import exit_codes, start


def fused(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, fused=True)


def fit(model, sets, folder, steps=3, callbacks=(), **options):
    trainer = trainer_of(folder, steps, callbacks, limit_val_batches=0, **options)
    trainer.fit(model, data_of(sets))
    return trainer


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a value that the device has yet to compute."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function._schema.name.removeprefix("aten::") not in self.WAITING, function
        return function(*args, **(kwargs or {}))


class Watched(Callback):
    """Steps under `NoWaiting`, from forward to logging; not the first, which loads models."""

    def __init__(self):
        self.steps, self.watching = 0, ExitStack()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx:
            self.watching.enter_context(NoWaiting())
            self.steps += 1

    def on_train_batch_end(self, *_):
        self.watching.close()

    def on_exception(self, *_):
        self.watching.close()


EVERYTHING = Objective(
    snr_gamma=5.0,
    noise_offset=0.1,
    huber_delta=0.1,
    caption_dropout=0.5,
    prior_loss_weight=dict.fromkeys(CLASSES, 1.0),
)


@pytest.mark.parametrize("options", [{}, {"objective": EVERYTHING, "train_text_encoder": True}])
def test_no_fused_step_waits_for_the_device(base, sets, tmp_path, options):
    watched = Watched()
    model = DreamBooth(base, optimizer=fused, channels_last=True, **options)
    fit(model, sets, tmp_path, callbacks=[watched], precision="bf16-mixed", gradient_clip_val=1.0)
    assert watched.steps == 2


def test_waiting_is_noticed():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        torch.ones(1).item()


def foreach(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, foreach=True)  # the meta device knows no fused one


@pytest.mark.parametrize(
    ("precision", "cached", "options"),
    [
        ("bf16-mixed", False, {}),
        ("bf16-true", True, {"gradient_checkpointing": True}),
        ("32-true", False, {"objective": EVERYTHING, "train_text_encoder": True}),
        ("32-true", True, {"objective": EVERYTHING, "lora": LoRA(rank=2)}),
    ],
)
def test_all_of_a_step_is_on_the_gpu_and_waits_for_none_of_it(base, sets, tmp_path, precision, cached, options):
    data = data_of(sets, latent_cache=tmp_path / "cache" if cached else None)
    if cached:
        trainer_of(tmp_path, 1, limit_val_batches=0).fit(DreamBooth(base, optimizer=foreach), data)
    model = DreamBooth(base, optimizer=foreach, channels_last=True, **options)
    callbacks = [ShownImages(), Throughput(), *([] if precision == "bf16-true" else [EMA(decay=0.5)])]
    steps = fit_on_pretended_gpu(model, data, tmp_path, callbacks, precision=precision, gradient_clip_val=1.0)
    assert steps == 2


def test_a_step_that_waits_for_a_gpu_is_noticed(base, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(dreambooth, "to_device", torch.Tensor.to)
    with pytest.raises(AssertionError, match="waits for a copy to the GPU"):
        fit_on_pretended_gpu(DreamBooth(base, optimizer=foreach), data_of(sets), tmp_path)


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda x: x[0].item(), "reads a number"),
        (lambda x: bool(x[0] > 0), "reads a number"),
        (lambda x: x.cpu(), "copies from the GPU"),
        (lambda x: x.tolist(), "copies from the GPU"),
        (lambda x: torch.ones(8).to(x.device, non_blocking=True), "waits for a copy to the GPU"),
        (lambda x: torch.ones(8).pin_memory().to(x.device), "waits for a copy to the GPU"),
        (lambda x: x + torch.ones(8), "of the GPU and of the host"),
        (lambda x: x[torch.tensor([0])], "of the GPU and of the host"),
    ],
)
def test_what_waits_for_a_gpu_is_noticed(slip, message):
    with Copies(in_step=True):
        number = torch.ones((8,), device=GPU)
        to_device(torch.ones(8), GPU) + number * 2
        with pytest.raises(AssertionError, match=message):
            slip(number)


def test_noise_is_added_in_float32_under_mixed_precision(base, sets, tmp_path, monkeypatch):
    seen = []
    add_noise = dreambooth.add_noise

    def spied(alphas_cumprod, latents, noise, timesteps):
        noisy = add_noise(alphas_cumprod, latents, noise, timesteps)
        level = alphas_cumprod.double()[timesteps][:, None, None, None]
        seen.append((noisy, level.sqrt() * latents.double() + (1 - level).sqrt() * noise.double(), latents, noise))
        return noisy

    monkeypatch.setattr(dreambooth, "add_noise", spied)
    outputs = []
    model = DreamBooth(base, optimizer=fused)
    model.unet.register_forward_hook(lambda module, arguments, output: outputs.append(output.sample))
    fit(model, sets, tmp_path, precision="bf16-mixed")
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert seen
    for noisy, exact, latents, noise in seen:
        assert {noisy.dtype, latents.dtype, noise.dtype} == {torch.float32}
        torch.testing.assert_close(noisy.double(), exact, rtol=0, atol=1e-6)


def test_attention_is_the_fused_kind(base):
    model = DreamBooth(base)
    assert {type(p).__name__ for p in model.unet.attn_processors.values()} == {"AttnProcessor2_0"}
    assert model.parts.text_encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"lora": LoRA(rank=2)}])
def test_compiled_blocks_train_to_the_same_weights_under_the_same_names(base, sets, tmp_path, options):
    weights = {}
    for compiled in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)  # of the adapters
        model = DreamBooth(base, optimizer=fused, compile=compiled, **options)
        # The real compiler would take minutes; this one stops before code is generated.
        with torch.compiler.set_stance(force_backend="aot_eager"):
            fit(model, sets, tmp_path, callbacks=[EMA(decay=0.5)], precision="32-true")
        weights[compiled] = model.state_dict()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert (graphs > 0) == compiled
        assert not torch._dynamo.utils.counters["recompile_limit"]
    assert list(weights[True]) == list(weights[False])
    for name, value in weights[False].items():
        torch.testing.assert_close(weights[True][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_ddp_leaves_a_compiled_block_whole(tmp_path):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        # Each of its two convolutions fills a bucket of gradients of 1 MB.
        block = ResnetBlock2D(in_channels=256, temb_channels=None)
        compile_blocks(block)
        with torch.compiler.set_stance(force_backend=count):
            DistributedDataParallel(block, bucket_cap_mb=1)(torch.zeros(1, 256, 2, 2), None)
    finally:
        torch.distributed.destroy_process_group()
    assert len(graphs) == 1


def test_validation_and_samples_compile_nothing(base, sets, tmp_path):
    torch._dynamo.reset()
    model = DreamBooth(base, optimizer=fused, compile=True)
    with torch.compiler.set_stance(force_backend="aot_eager"):
        fit(model, sets, tmp_path, steps=1)
        torch._dynamo.utils.counters.clear()
        trainer_of(tmp_path, 1).validate(model, data_of(sets), verbose=False)
        model.sample(["a mole"], [0])
    assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_channels_last_trains_alike_and_is_exported_in_the_usual_order(base, sets, tmp_path):
    models = {last: DreamBooth(base, optimizer=fused, channels_last=last) for last in (False, True)}
    for model in models.values():
        fit(model, sets, tmp_path)
    weight = models[True].unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in models[False].state_dict().items():
        torch.testing.assert_close(models[True].state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
    models[True].export(tmp_path / "exported", "diffusers")
    again = DreamBooth(str(tmp_path / "exported")).unet.conv_in.weight
    assert torch.equal(again, weight)
    assert again.is_contiguous()


def test_gradients_are_clipped_under_a_fused_optimizer_and_mixed_precision(base, sets, tmp_path):
    class Norms(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    norms = []
    options = {"precision": "bf16-mixed", "gradient_clip_val": 1e-3}
    fit(DreamBooth(base, optimizer=fused), sets, tmp_path, callbacks=[Norms()], **options)
    unclipped = norms.copy()
    norms.clear()

    class Clipped(DreamBooth):
        def optimizer_step(self, *arguments, **options):
            super().optimizer_step(*arguments, **options)
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in self.unet.parameters()])))

    fit(Clipped(base, optimizer=fused), sets, tmp_path, **options)
    assert min(unclipped) > 1e-2
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)


def share_a_loss(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    value = torch.tensor(float(rank + 1))
    assert (mean_over_ranks(value), value) == (1.5, rank + 1)
    steps = [SimpleNamespace(global_step=number, log_every_n_steps=3) for number in range(4)]
    assert [mean_if_logged(value, step) for step in steps] == [rank + 1, rank + 1, 1.5, rank + 1]
    torch.distributed.destroy_process_group()


def test_the_logged_loss_is_the_mean_of_the_ranks(tmp_path):
    value = torch.tensor(3.0)
    assert mean_over_ranks(value) is value
    assert exit_codes(start(share_a_loss, 2, tmp_path)) == [0, 0]


def test_the_loss_is_reduced_in_the_steps_that_are_logged_and_in_no_other(base, sets, tmp_path, monkeypatch):
    reduced, logged = [], {}
    monkeypatch.setattr(ranks, "mean_over_ranks", lambda value: (reduced.append(model.global_step), 0 * value + 7)[1])

    class Noted(DummyLogger):
        def log_metrics(self, metrics, step):
            logged.update({step: metrics["train/loss"]} if "train/loss" in metrics else {})

    model = DreamBooth(base, optimizer=fused)
    trainer = trainer_of(tmp_path, 6, limit_val_batches=0, accumulate_grad_batches=2, log_every_n_steps=3)
    trainer.loggers = [Noted()]
    trainer.fit(model, data_of(sets))
    assert list(logged.values()) == [7, 7]
    assert reduced == [2, 2, 5, 5]  # both batches of the third and sixth step


def test_a_fused_optimizer_cannot_be_clipped_with_scaled_gradients():
    scaled = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    module = SimpleNamespace(trainer=SimpleNamespace(precision_plugin=scaled))
    optimizer = fused([torch.zeros(1, requires_grad=True)])
    with pytest.raises(InputError, match=r"gradient_clip_val: under precision 16-mixed .* Use bf16-mixed"):
        clip_gradients(module, optimizer, 1.0, None)
