"""What libraries do not promise: refused by name where it is missing, and used in the files of seams alone."""

import ast
import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from diffusers.models import attention, resnet
from lightning import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops import fit_loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning_utilities.core import imports
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.clip import modeling_clip

from callbacks import seams as of_callbacks
from callbacks.ema import EMA
from dermsynth.data.mixing.sampler import ResumableLoader, TrainSampler
from dermsynth.diffusion import seams as of_diffusion
from dermsynth.run import lean
from dermsynth.run import seams as of_runs
from dermsynth.seams import SeamError
from tests.callbacks.test_ema import Drift
from tests.test_imports import FILES, ROOT, name_of
from tests.test_imports import imports as imported

SEAMS = {"callbacks.seams", "dermsynth.diffusion.seams", "dermsynth.run.lean", "dermsynth.run.seams"}


def trainer(folder):
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=folder)


def loader():
    return ResumableLoader(range(4), batch_sampler=TrainSampler(lambda epoch: [0, 1, 2, 3], 4, 2, 0, 1, 0))


def launched(folder):
    given = trainer(folder)
    given.strategy._launcher = _SubprocessScriptLauncher(None, 1, 1)
    return given


# What is missing in the end, and who notices it.
MISSING = {
    "run": (LightningCLI, "_run_subcommand", lambda _: of_runs.OpenCLI()),
    "seed": (LightningCLI, "_set_seed", lambda _: of_runs.OpenCLI()),
    "hyperparameters": (LightningCLI, "_parse_ckpt_path", lambda _: of_runs.OpenCLI()),
    "parser": (LightningCLI, "_parser", lambda _: of_runs.OpenCLI()),
    "handlers": (
        _SignalConnector,
        "register_signal_handlers",
        lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict),
    ),
    "stage": (Trainer, "_run", lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict)),
    "end": (_SignalConnector, "teardown", lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict)),
    "batch": (_TrainingEpochLoop, "advance", lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict)),
    "epoch": (fit_loop._FitLoop, "on_advance_start", lambda _: of_runs.check_epochs_reach(loader())),
    "compiler": (torch._dynamo, "config", lambda _: of_diffusion.set_compiler(8)),
    "broadcast": (
        _TrainingEpochLoop,
        "_broadcast_sigterm_tensor",
        lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict),
    ),
    "validates": (
        _TrainingEpochLoop,
        "_should_check_val_fx",
        lambda folder: of_runs.validates_now(trainer(folder)),
    ),
    "loop": (fit_loop, "_FitLoop", lambda _: of_runs.check_epochs_reach(loader())),
    "epochs": (fit_loop, "_set_sampler_epoch", lambda _: of_runs.check_epochs_reach(loader())),
    "lean": (imports, "_version", lambda _: lean._import_torchmetrics()),
    "lean, too": (imports, "package_available", lambda _: lean._import_torchmetrics()),
    "transformer": (attention, "BasicTransformerBlock", lambda _: of_diffusion.repeated_blocks(nn.Linear(1, 1))),
    "residual": (resnet, "ResnetBlock2D", lambda _: of_diffusion.repeated_blocks(nn.Linear(1, 1))),
    "text": (modeling_clip, "CLIPEncoderLayer", lambda _: of_diffusion.repeated_blocks(nn.Linear(1, 1))),
    "swap": (WeightAveraging, "_swap_models", lambda _: EMA().setup(None, Drift(), "test")),
    "graph": (torch._C, "_current_graph_task_id", lambda _: of_callbacks.in_backward_pass()),
}


@pytest.mark.parametrize("which", MISSING)
def test_what_a_library_has_no_longer_is_named(tmp_path, monkeypatch, which):
    owner, name, use = MISSING[which]
    monkeypatch.delattr(owner, name)
    with pytest.raises(SeamError, match=rf"^[\w-]+ \d+\.\S+ has no .*\.{name}, on which [\w.]+ relies\. Install .*\.$"):
        use(tmp_path)


def test_what_objects_have_no_longer_is_named(tmp_path, monkeypatch):
    logger = SimpleNamespace(experiment=SimpleNamespace(_get_file_writer=None))
    for given, name, use in (
        (trainer(tmp_path), "_signal_connector", lambda given: of_runs.replace_signal_handlers(given, dict)),
        (launched(tmp_path), "strategy.launcher.procs", of_runs.started_processes),
        (trainer(tmp_path), "fit_loop._data_fetcher", of_runs.validates_now),
        (Drift(), "_trainer", of_runs.attached_trainer),
        (logger, "experiment._get_file_writer", lambda given: of_runs.write_summary(given, None)),
        (EMA(), "_average_model", lambda given: given.setup(None, Drift(), "test")),
        (EMA(), "_latest_update_step", lambda given: given.setup(None, Drift(), "test")),
    ):
        *path, name = name.split(".")
        owner = given
        for part in path:
            owner = getattr(owner, part)
        monkeypatch.delattr(owner, name)
        with pytest.raises(SeamError, match=rf"(lightning|torch) \d.* has no .*{name}"):
            use(given)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("lightning.pytorch.loops.fit_loop", lambda: of_runs.check_epochs_reach(loader())),
        ("lightning.pytorch.trainer.connectors.checkpoint_connector", of_runs.OpenCLI),
        ("diffusers.models.attention", lambda: of_diffusion.repeated_blocks(nn.Linear(1, 1))),
        ("transformers.models.clip.modeling_clip", lambda: of_diffusion.repeated_blocks(nn.Linear(1, 1))),
    ],
)
def test_a_module_that_a_library_has_no_longer_is_named(monkeypatch, module, use):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SeamError, match=rf"^{module.split('.')[0]} \d.* has no module {module}, on which"):
        use()


@pytest.mark.parametrize(
    ("owner", "name", "use"),
    [
        (torch.ops, "mkldnn", lambda: of_runs.cpu_computes(torch.bfloat16)),
        (torch.ops, "aten", of_callbacks.attention_on_cpu),
        (torch._dynamo, "config", lambda: of_diffusion.set_compiler(8)),
    ],
)
def test_what_a_part_of_torch_has_no_longer_is_named(monkeypatch, owner, name, use):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(owner, name, SimpleNamespace())
    with pytest.raises(SeamError, match=r"torch \d.* has no SimpleNamespace\."):
        use()


def _otherwise(self, more):
    """A function of a library that has changed: it takes something else, and calls nothing that is relied on."""


CHANGED = {
    "run": (LightningCLI, "_run_subcommand", lambda _: of_runs.OpenCLI(), "takes other than"),
    "calls": (LightningCLI, "__init__", lambda _: of_runs.OpenCLI(), "does not use _run_subcommand"),
    "signals": (
        Trainer,
        "_run",
        lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict),
        "does not use register_signal_handlers",
    ),
    "batches": (
        _TrainingEpochLoop,
        "advance",
        lambda folder: of_runs.replace_signal_handlers(trainer(folder), dict),
        "does not use _broadcast_sigterm_tensor",
    ),
    "epochs": (
        fit_loop._FitLoop,
        "on_advance_start",
        lambda _: of_runs.check_epochs_reach(loader()),
        "does not use _set_sampler_epoch",
    ),
    "averages": (
        WeightAveraging,
        "on_validation_epoch_start",
        lambda _: EMA().setup(None, Drift(), "test"),
        "does not use _swap_models",
    ),
    "formulas": (FlopCounterMode, "__init__", lambda _: of_callbacks.takes_tensors(len), "does not use _get_raw"),
}


@pytest.mark.parametrize("which", CHANGED)
def test_what_would_be_replaced_in_vain_is_named(tmp_path, monkeypatch, which):
    owner, name, use, said = CHANGED[which]
    monkeypatch.setattr(owner, name, _otherwise)
    with pytest.raises(SeamError, match=said):
        use(tmp_path)


def test_a_network_of_other_blocks_is_named():
    with pytest.raises(SeamError, match=r"torch .* has in Linear neither BasicTransformerBlock nor ResnetBlock2D"):
        of_diffusion.repeated_blocks(nn.Linear(1, 1))


def test_a_batch_sampler_that_is_told_no_epoch_is_named():
    given = loader()
    of_runs.check_epochs_reach(given)
    assert given.batch_sampler.epoch == 0
    del given.batch_sampler.sampler
    with pytest.raises(SeamError, match="tells a batch sampler no epoch"):
        of_runs.check_epochs_reach(given)


def test_an_average_that_is_not_made_by_deepcopy_is_named(monkeypatch):
    monkeypatch.setattr("torch.optim.swa_utils.deepcopy", lambda model: type(model)())
    with pytest.raises(SeamError, match="makes an average without deepcopy"):
        of_callbacks.OpenAveraging().setup(None, Drift(), "fit")


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_private_names_of_others_are_used_in_seams_alone():
    """A private attribute is one that a file of ours defines, or the file is one of seams."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES if name_of(file) not in SEAMS}
    ours, used = {"_exit", "_asdict"}, set()  # both are documented: of os, of named tuples
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
            elif isinstance(node, ast.Attribute):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                if of_self and isinstance(node.ctx, ast.Store):
                    ours.add(node.attr)
                used.add((file, node.lineno, node.attr))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and "attr" in node.func.id:
                words = [word.value for word in node.args if isinstance(word, ast.Constant)]
                used |= {(file, node.lineno, word) for word in words if isinstance(word, str)}
    assert not {place for place in used if is_private(place[2]) and place[2] not in ours}
    ours_alone = {"dermsynth", "callbacks"}
    for file in trees:
        foreign = {module for module in imported(file) if module.split(".")[0] not in ours_alone}
        assert not {module for module in foreign if any(is_private(part) for part in module.split("."))}, file


def test_no_class_has_a_method_in_place_of_a_private_one_of_others():
    for file in FILES:
        if name_of(file) in SEAMS:
            continue
        for found in vars(importlib.import_module(name_of(file))).values():
            if not isinstance(found, type) or found.__module__ != name_of(file):
                continue
            own = {"dermsynth", "callbacks", *sys.stdlib_module_names}
            others = [base for base in found.__mro__ if base.__module__.split(".")[0] not in own]
            theirs = {name for base in others for name in vars(base) if is_private(name)}
            ours = {name for name, value in vars(found).items() if callable(value) or isinstance(value, property)}
            assert not ours & theirs, found


def test_every_file_of_seams_is_there():
    assert {name_of(file) for file in FILES if file.stem == "seams"} == SEAMS - {"dermsynth.run.lean"} | {
        "dermsynth.seams"
    }
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in SEAMS)
