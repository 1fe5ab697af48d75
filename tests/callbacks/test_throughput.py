from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import TorchCheckpointIO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from callbacks import throughput
from callbacks.throughput import Throughput, dense_peak, flop_counter, stop_the_clock

WIDTH, TOKENS = 16, 4
LINEAR = 2 * TOKENS * WIDTH * WIDTH * 2  # forward, and the weights' gradient: the input needs none
ATTENTION = 2 * TOKENS * TOKENS * WIDTH * (2 + 5)  # two products forward; backward four, and one computed again


class Clock:
    """Time that passes only where it is said to."""

    seconds = 0.0

    def __call__(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(throughput, "now", CLOCK)


class Toy(L.LightningModule):
    """A linear layer and attention over four tokens, each step taking so many seconds."""

    def __init__(self, seconds=0.05, wrap=lambda f: f, inputs_need_gradients=False):
        super().__init__()
        self.inputs_need_gradients = inputs_need_gradients
        self.layer = nn.Linear(WIDTH, WIDTH, bias=False)
        self.seconds, self.run = seconds, wrap(self._run)

    def _run(self, x):
        y = self.layer(x)[:, None]  # one head
        return nn.functional.scaled_dot_product_attention(y, y, y)

    def training_step(self, batch, index):
        CLOCK.sleep(self.seconds)
        return self.run(batch["x"].requires_grad_(self.inputs_need_gradients)).square().mean()

    def validation_step(self, batch, index):
        CLOCK.sleep(0.5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Broken(Toy):
    def training_step(self, batch, index):
        raise RuntimeError("power cut")


def batches(count=8, size=4):
    generator = torch.Generator().manual_seed(0)
    rows = [{"x": torch.randn(TOKENS, WIDTH, generator=generator), "image_id": str(n)} for n in range(count * size)]
    return DataLoader(rows, batch_size=size)


def fit(folder, module, steps=8, before=(), after=(), **options):
    callback = Throughput()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[*before, callback, *after],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, "log_every_n_steps": 2, **options},
    )
    trainer.fit(module, batches(), batches(1, 1) if "val_check_interval" in options else None)
    return callback


def logged(folder: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {event.step: event.value for event in events.Scalars(f"throughput/{name}")}


def test_the_work_of_an_image_is_that_of_the_formula(tmp_path):
    assert fit(tmp_path, Toy()).flops_per_image == LINEAR + ATTENTION


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_is_no_more_work(tmp_path, reentrant):
    seen = []

    def run_again(run):
        def checkpointed(x):
            return checkpoint(lambda x: (seen.append(x), run(x))[1], x, use_reentrant=reentrant)

        return checkpointed

    steps = 8
    inputs = LINEAR // 2 if reentrant else 0  # it takes gradients of what is given to it
    found = fit(tmp_path, Toy(wrap=run_again, inputs_need_gradients=reentrant), steps).flops_per_image
    assert len(seen) == 2 * steps
    assert found == LINEAR + inputs + ATTENTION


def test_speed_is_logged_after_the_first_interval_and_without_validation(tmp_path):
    fit(tmp_path, Toy(), val_check_interval=3, limit_val_batches=1, num_sanity_val_steps=0)
    speed = logged(tmp_path, "images_per_second")
    assert list(speed) == [4, 6, 8]
    assert list(speed.values()) == pytest.approx([80] * 3)  # 4 images in 0.05 s
    work = logged(tmp_path, "tflops")
    for step, value in speed.items():
        assert work[step] * 1e12 / value == pytest.approx(LINEAR + ATTENTION, rel=1e-3)
    assert all(0.05 < value < 100 for value in logged(tmp_path, "peak_memory_gb").values())
    assert "throughput/mfu" not in EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]


def test_the_writing_of_checkpoints_is_not_counted(tmp_path):
    class Slow(TorchCheckpointIO):
        def save_checkpoint(self, *arguments, **options):
            CLOCK.sleep(0.5)
            super().save_checkpoint(*arguments, **options)

    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=3)
    fit(
        tmp_path,
        Toy(),
        after=[checkpoint],
        plugins=[Slow()],
        enable_checkpointing=True,
        val_check_interval=5,
        limit_val_batches=1,
        num_sanity_val_steps=0,
    )
    assert list(logged(tmp_path, "images_per_second").values()) == pytest.approx([80] * 3)


def test_memory_is_that_of_training_steps(tmp_path, monkeypatch):
    held = []

    class Hungry(Toy):
        def training_step(self, batch, index):
            held.append(100 if self.global_step < 2 else 1 + self.global_step / 10)  # the first interval warms up
            return super().training_step(batch, index)

        def validation_step(self, batch, index):
            held.append(50)

    monkeypatch.setattr(throughput, "peak_memory_gb", lambda device: max(held, default=0))
    monkeypatch.setattr(throughput, "forget_peak_memory", lambda device: held.clear())
    held.append(1000)  # before training
    fit(tmp_path, Hungry(), val_check_interval=3, limit_val_batches=1)
    assert logged(tmp_path, "peak_memory_gb") == pytest.approx({4: 1.3, 6: 1.5, 8: 1.7})


def test_work_is_counted_where_every_step_is_logged(tmp_path):
    assert fit(tmp_path, Toy(), log_every_n_steps=1).flops_per_image == LINEAR + ATTENTION
    assert list(logged(tmp_path, "tflops")) == [2, 3, 4, 5, 6, 7, 8]


class Draws(L.Callback):
    """Runs the model at the end of each batch, which takes time."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        stop_the_clock(trainer, pl_module)
        CLOCK.sleep(0.2)
        pl_module.layer(torch.ones(100, WIDTH))


@pytest.mark.parametrize("first", [True, False])
def test_what_is_drawn_meanwhile_is_neither_timed_nor_counted(tmp_path, first):
    module = Toy()
    if first:
        callback = fit(tmp_path, module, before=[Draws()])
    else:
        module.configure_callbacks = lambda: [Draws()]  # which Lightning puts at the end
        callback = fit(tmp_path, module)
    assert callback.flops_per_image == LINEAR + ATTENTION
    speed = logged(tmp_path, "images_per_second")
    assert list(speed) == [4, 6, 8]
    assert list(speed.values()) == pytest.approx([80] * 3)


def test_accumulated_batches_are_all_counted(tmp_path):
    fit(tmp_path, Toy(), steps=4, accumulate_grad_batches=2, log_every_n_steps=2)
    speed = logged(tmp_path, "images_per_second")
    assert list(speed) == [4]
    assert speed[4] == pytest.approx(80)


def test_counting_changes_no_weight_and_leaves_compiling_to_the_second_step(tmp_path):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    weights = []
    for wrap in (lambda f: f, lambda f: torch.compile(f, backend=backend, dynamic=False)):
        torch.manual_seed(0)
        module = Toy(wrap=wrap)
        fit(tmp_path, module)
        weights.append(module.layer.weight)
    assert torch.equal(*weights)
    assert graphs, "nothing was compiled after the step that was counted"


def test_nothing_is_left_switched_on_after_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, Broken())
    assert torch._C._len_torch_dispatch_stack() == 0
    graphs = []
    torch.compile(lambda x: x + 1, backend=lambda graph, _: (graphs.append(graph), graph.forward)[1])(torch.ones(2))
    assert graphs


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_are_dense(name, peak):
    assert dense_peak(name) == peak


@pytest.mark.real_data
def test_stable_diffusion_costs_what_is_published(real_models):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    configs = real_models / "stable-diffusion-v1-5"
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet")).train()
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
        latents, steps, words = torch.randn(1, 4, 64, 64), torch.ones(1, dtype=torch.long), torch.randn(1, 77, 768)
        pixels = torch.randn(1, 3, 512, 512)

    def tflops(work):
        with flop_counter() as counter:
            work()
        return counter.get_total_flops() / 1e12

    def forward_and_backward():
        unet(latents, steps, words).sample.sum().backward()

    with torch.no_grad():
        assert tflops(lambda: unet(latents, steps, words)) == pytest.approx(0.803, abs=5e-4)
        assert tflops(lambda: vae.encode(pixels)) == pytest.approx(1.117, abs=5e-4)
    assert tflops(forward_and_backward) == pytest.approx(2.407, abs=5e-4)
    unet.enable_gradient_checkpointing()
    assert tflops(forward_and_backward) == pytest.approx(2.407, abs=5e-4)
