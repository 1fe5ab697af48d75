"""Imports go one way (docs/design.md), read from the source."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import KeysView
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from dermsynth.cli import main
from tests.builders import make_set

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("dermsynth/**/*.py"), *ROOT.glob("callbacks/*.py")])

# Where a LightningModule or LightningDataModule lives: these may import lightning.
MODULES = {
    "dermsynth.data.loading.generation",
    "dermsynth.data.loading.modules",
    "dermsynth.diffusion.dreambooth",
    "dermsynth.diffusion.autoencoder",
    "dermsynth.classification.classifier",
}
DOMAINS = ("dermsynth.diffusion", "dermsynth.classification", "dermsynth.evaluation", "dermsynth.data")
# What every room may import.
COMMON = {
    "dermsynth",
    "dermsynth.base_licenses",
    "dermsynth.contracts",
    "dermsynth.errors",
    "dermsynth.lesions",
    "dermsynth.data.sets.manifest",
    "dermsynth.evaluation.choices",
    "dermsynth.evaluation.measure",
    "dermsynth.evaluation.metrics",
    "dermsynth.run.checkpoint_facts",
    "dermsynth.run.checkpoints",
    "dermsynth.run.lean",
    "dermsynth.run.schedules",
    "dermsynth.grids",
    "dermsynth.files",
    "dermsynth.hub",
    "dermsynth.made_from",
    "dermsynth.provenance",
    "dermsynth.run.ranks",
    "dermsynth.run.config",
    "dermsynth.run.seams",
    "dermsynth.seams",
    "dermsynth.seeds",
    "dermsynth.weights",
    "dermsynth.run.yaml_files",
}


# What each room of the data builds on.
ROOMS_OF_DATA: dict[str, set[str]] = {
    "sets": set(),
    "prepare": {"sets"},
    "mixing": {"sets"},
    "loading": {"sets", "prepare", "mixing"},
    "phantoms": {"sets"},
}


def room_of_data(module: str) -> str:
    """The room of a module of the data; blank for any other module."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["dermsynth", "data"] and len(parts) > 3 else ""


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, at_top_only: bool = False) -> KeysView[str]:
    """Modules that a file imports, in order; `from a import b` counts as a.b if that is a module."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in tree.body if at_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (ROOT / inner.replace(".", "/")).with_suffix(".py").exists()
                found.append(inner if is_module else str(node.module))
    return dict.fromkeys(found).keys()


def room(module: str) -> str:
    return next((domain for domain in DOMAINS if module.startswith(domain)), module)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_one_way(file):
    me, wanted = name_of(file), imports(file)
    ours = {module for module in wanted if module.startswith("dermsynth")}
    if not me.startswith("callbacks"):
        assert not {m for m in wanted if m.split(".")[0] == "callbacks"}, "nothing in dermsynth imports callbacks"
    if me.startswith(DOMAINS):
        strangers = {m for m in ours if room(m) != room(me)} - COMMON
        assert not strangers, "a room imports no other domain and nothing above it"
        if me not in MODULES:
            assert not {m for m in wanted if m.split(".")[0] == "lightning"}, "pure rooms do not know lightning"
            assert not ours & MODULES, "pure rooms do not import modules"
        assert not (ours & MODULES) - {me}, "modules meet in YAML"
    if me.startswith("dermsynth.tools"):
        assert not {m for m in ours if m.startswith(("dermsynth.cli", "dermsynth.run.training_cli"))}


@pytest.mark.parametrize("file", [file for file in FILES if room_of_data(name_of(file))], ids=name_of)
def test_the_rooms_of_data_build_on_one_another_in_one_direction(file):
    me = room_of_data(name_of(file))
    wanted = {found for module in imports(file) if (found := room_of_data(module))} - {me}
    assert wanted <= ROOMS_OF_DATA[me]


def test_wording_and_figures_know_results_alone():
    results = ("result", "answers", "estimates")
    known = ("dermsynth.report", "dermsynth.evaluation", *(f"dermsynth.audit.{name}" for name in results))
    for file in ROOT.glob("dermsynth/report/*.py"):
        ours = {m for m in imports(file) if m.startswith("dermsynth")}
        assert not {m for m in ours if not m.startswith(known)} - COMMON, file


def test_the_audit_lies_above_the_domains_and_below_the_commands():
    above = ("dermsynth.cli", "dermsynth.tools", "dermsynth.study", "dermsynth.report", "dermsynth.run.training_cli")
    readers = ("dermsynth.audit", "dermsynth.tools", "dermsynth.study", "dermsynth.report")
    for file in FILES:
        me, wanted = name_of(file), imports(file)
        if me.startswith("dermsynth.audit"):
            assert not {m for m in wanted if m.startswith(above)}, me
        if not me.startswith(readers):
            assert not {m for m in wanted if m.startswith("dermsynth.audit")}, me


def test_the_command_line_imports_only_the_standard_library():
    wanted = imports(ROOT / "dermsynth/cli.py", at_top_only=True) | imports(ROOT / "dermsynth/errors.py")
    assert {m for m in wanted if m.split(".")[0] not in sys.stdlib_module_names} == {"dermsynth", "dermsynth.errors"}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["formats"]]
    declared = {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in wanted}
    owners = packages_distributions()
    tops = {module.split(".")[0] for file in FILES for module in imports(file)}
    foreign = tops - sys.stdlib_module_names - {"dermsynth", "callbacks"}
    assert {"torch", "yaml", "huggingface_hub", "docstring_parser", "h5py"} <= foreign
    undeclared = {top for top in foreign if not {n.lower().replace("_", "-") for n in owners[top]} & declared}
    assert not undeclared


def test_the_registry_of_metrics_needs_numpy_alone():
    for name in ("metrics", "measure"):
        wanted = imports(ROOT / f"dermsynth/evaluation/{name}.py")
        foreign = {m.split(".")[0] for m in wanted} - sys.stdlib_module_names
        assert foreign == {"numpy"} | ({"dermsynth"} if name == "measure" else set())
        assert {m for m in wanted if m.startswith("dermsynth")} <= {"dermsynth.evaluation.metrics"}


def test_mixing_and_evaluation_know_no_torch():
    mixing = [ROOT / f"dermsynth/data/mixing/{name}.py" for name in ("policy", "policies", "dealing")]
    for file in [*mixing, *ROOT.glob("dermsynth/evaluation/*.py"), *ROOT.glob("dermsynth/report/*.py")]:
        assert not {m for m in imports(file) if m.split(".")[0] in ("torch", "lightning")}, file


def test_a_study_is_read_and_planned_without_torch():
    for file in ROOT.glob("dermsynth/study/*.py"):
        assert not {m for m in imports(file, at_top_only=True) if m.split(".")[0] in ("torch", "lightning")}, file
        wanted = imports(file)
        strangers = {m for m in wanted if m.startswith(DOMAINS)} - COMMON
        commands = {"dermsynth.data.prepare.image_set", "dermsynth.data.phantoms.patients", "dermsynth.evaluation.runs"}
        assert strangers <= commands, "it runs commands"


def in_order(module, seen=()):
    """The modules that importing one imports, as the tops of our files say, each where it is met first."""
    file, seen = ROOT / f"{module.replace('.', '/')}.py", [*seen, module]
    for name in imports(file, at_top_only=True) if file.is_file() else ():
        if name not in seen:
            seen = in_order(name, seen)
    return seen


def test_what_a_command_imports_lazily_has_the_lean_lightning():
    lazy = {m for file in FILES for m in imports(file) - imports(file, at_top_only=True) if m.startswith("dermsynth")}
    heavy = []
    for module in lazy:
        order = in_order(module)
        if first := next((name for name in order if name.split(".")[0] == "lightning"), None):
            heavy.append(module)
            assert "dermsynth.run.lean" in order[: order.index(first)], module
    assert {"dermsynth.run.configuration", "dermsynth.run.folder", "dermsynth.run.trained"} <= set(heavy)


def imported_by(code, *arguments):
    """The packages that a fresh process has imported at its end, having said nothing of transformers' parts."""
    shown = f"import atexit, sys\natexit.register(lambda: print('\\n', *sys.modules))\n{code}"
    command = [sys.executable, "-c", shown, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "[transformers]" not in done.stderr
    return {module.split(".")[0] for module in done.stdout.splitlines()[-1].split()}


COMMAND = "from dermsynth.cli import main; sys.exit(main(sys.argv[1:]))"
UNUSED = {"albumentations", "diffusers", "matplotlib", "pandas", "peft", "pydantic", "sklearn"}


def test_data_modules_and_help_import_no_model_and_no_augmentation():
    imported = imported_by(f"import dermsynth.data.loading.modules; {COMMAND}", "fit", "--help")
    assert "lightning" in imported
    assert not imported & {*UNUSED, "scipy", "transformers"}


def test_a_study_is_checked_with_the_lean_lightning(tmp_path):
    imported = imported_by(COMMAND, "study", "configs/studies/quickstart.yaml", "--dry-run", "--out", tmp_path)
    assert {"diffusers", "lightning", "transformers"} <= imported  # which would have something to say


def test_testing_a_classifier_imports_no_generator_and_no_augmentation(tmp_path):
    network = "{model_type: vit, image_size: 16, patch_size: 8, hidden_size: 8, num_hidden_layers: 1, "
    network += "num_attention_heads: 1, intermediate_size: 8}"
    common = ["--run", tmp_path / "run", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    common += ["--model", "Classifier", "--model.model", network, "--data", "ClassificationData"]
    common += ["--data.real", make_set(tmp_path / "set"), "--data.classes", "[NV, MEL, SK]", "--data.size", 16]
    common += ["--trainer.callbacks", "[{class_path: callbacks.classifier_pictures.ClassifierPictures}]"]
    common = [str(word) for word in [*common, "--data.batch_size", 4, "--trainer.enable_progress_bar", "false"]]
    assert main(["fit", *common, "--trainer.max_steps", "1"]) == 0
    imported = imported_by(COMMAND, "test", *common, "--ckpt_path", tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert {"matplotlib", "transformers"} <= imported
    assert not imported & (UNUSED - {"matplotlib"})
