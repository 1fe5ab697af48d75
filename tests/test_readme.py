"""Every command of the README is parsed by the real command line, and every file it names exists."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest

from dermsynth import cli
from tests.test_configs import ParsingCLI

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if line.strip().startswith("dermsynth ")]


def test_the_readme_has_commands():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line, monkeypatch):
    for name, value in {"$run": "runs/vit-baseline-seed0", "$arm": "baseline", "$seed": "0"}.items():
        line = line.replace(name, value)
    words = shlex.split(line)[1:]
    monkeypatch.chdir(ROOT)
    if words[0] in ("fit", "validate", "test", "predict"):
        config = words[words.index("--config") + 1]
        if config.startswith("runs/"):  # what an earlier command of the README writes
            words[words.index("--config") + 1] = "configs/tiny/vit_baseline.yaml"
            words += ["--run", "runs/x"]
        assert ParsingCLI(words).config[words[0]].model
        return
    module, name = cli.COMMANDS[words[0]][0].split(":")
    function, called = getattr(importlib.import_module(module), name), []

    @functools.wraps(function)
    def record(**values):
        called.append(values)

    monkeypatch.setattr(f"{module}.{name}", record)
    assert cli.main(words) == 0
    assert called[0]["out"]


def test_files_that_it_names_exist():
    named = set(re.findall(r"(?:configs|slurm|docs)/[\w/.-]+\.\w+", TEXT)) | set(
        re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert len(named) > 12
    assert not missing
    for name in re.findall(r"\| `([\w.]+\.yaml)`", TEXT):
        assert (ROOT / "configs" / name).is_file()


def test_make_targets_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)`?", TEXT):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
