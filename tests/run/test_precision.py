"""The precision that training gets where none is given."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace

from dermsynth.cli import main
from dermsynth.run import precision
from dermsynth.run.folder import FINISHED
from dermsynth.run.seams import cpu_computes


@pytest.fixture
def unsaid(here):
    """`line.yaml` without a precision."""
    recipe = yaml.safe_load(Path("line.yaml").read_text())
    del recipe["trainer"]["precision"]
    Path("line.yaml").write_text(yaml.safe_dump(recipe))


@pytest.fixture
def cpu(monkeypatch):
    """Makes this CPU one that computes in bfloat16, or not."""
    return lambda native: monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)


def run(stage, *more):
    return main([stage, "--config", "line.yaml", "--run", "r", *more])


def kept(stage="fit"):
    return yaml.safe_load(Path(f"r/{stage}.yaml").read_text())["trainer"]["precision"]


def test_torch_still_says_what_a_cpu_computes_in():
    for name in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        assert getattr(torch.ops.mkldnn, name)() in (True, False)


@pytest.mark.parametrize(
    ("native", "chosen", "why"),
    [
        (True, "bf16-mixed", "this CPU computes in bfloat16; one that does not gets 32-true."),
        (False, "32-true", "this CPU has no instructions for bfloat16"),
    ],
)
def test_it_is_what_the_cpu_computes_in(unsaid, cpu, capsys, native, chosen, why):
    cpu(native)
    assert run("fit") == 0
    said = capsys.readouterr().out
    assert f"trainer.precision: {chosen}, as {why}" in said
    assert "emulated" not in said
    assert kept() == chosen


def test_a_run_whose_configuration_is_broken_is_refused_in_one_line(unsaid, capsys):
    assert run("fit") == 0
    Path("r/fit.yaml").write_text("trainer: {precision: [}")
    assert run("test", "--ckpt_path", "r/checkpoints/last.ckpt") != 0
    assert "r/fit.yaml: not YAML" in capsys.readouterr().err


def test_a_run_keeps_it_on_another_cpu_and_so_does_its_test(unsaid, cpu, capsys):
    cpu(True)
    assert run("fit") == 0
    (Path("r") / FINISHED).unlink()
    capsys.readouterr()
    cpu(False)
    assert run("fit") == 0
    said = capsys.readouterr().out
    assert "resumed from r/checkpoints/last.ckpt" in said
    assert "trainer.precision: bf16-mixed is emulated on this CPU" in said
    assert kept() == "bf16-mixed"
    best = ["--ckpt_path", "r/checkpoints/best.ckpt"]
    assert run("test", *best) == 0
    assert kept("test") == "bf16-mixed"
    shutil.rmtree("r/checkpoints")
    Path("r/fit.yaml").unlink()
    assert run("fit") == 0
    assert kept() == "32-true"


@pytest.mark.parametrize("given", ["bf16-mixed", "bf16-true", "16-mixed"])
def test_where_it_is_emulated_one_line_says_how_slow_it_is_and_what_helps(unsaid, cpu, capsys, given):
    cpu(False)
    assert run("fit", "--trainer.precision", given) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "emulated" in line]
    assert line.startswith(f"warning: trainer.precision: {given} is emulated on this CPU, a matrix product about ")
    assert line.endswith(" times slower. Give --trainer.precision 32-true.")


@pytest.mark.parametrize("given", ["32-true", "64-true", "bf16-mixed"])
def test_what_is_given_is_taken_without_a_word(unsaid, cpu, capsys, given):
    cpu(given == "bf16-mixed")
    assert run("fit", "--trainer.precision", given) == 0
    assert "trainer.precision" not in capsys.readouterr().out
    assert kept() == given


def test_where_torch_has_no_such_library_float32_is_taken(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not cpu_computes(torch.bfloat16)
    assert not cpu_computes(torch.float16)


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_on_a_gpu_it_is_what_that_computes_in(monkeypatch, gpu, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    trainer = Namespace(accelerator="auto", precision=None, plugins=None)
    precision.resolve(Namespace(trainer=trainer, run=Path("nowhere")), "fit")
    assert trainer.precision == chosen
