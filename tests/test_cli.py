"""The dispatcher: quick, and one message for a mistake."""

import importlib
import inspect
import resource
import subprocess
import sys
import types
from pathlib import Path

import docstring_parser
import pytest

from dermsynth import __version__, cli
from dermsynth.cli import COMMANDS, main
from dermsynth.errors import InputError
from dermsynth.run.classes import DATA, MODELS, located

HEAVY = {"docstring_parser", "jsonargparse", "lightning", "numpy", "torch", "transformers", "yaml"}


def run_help(*options):
    command = [sys.executable, *options, "-m", "dermsynth", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def cpu_seconds_of_help():
    """CPU time and not that of a clock, which other programs on the machine make longer."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_help()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick():
    assert min(cpu_seconds_of_help() for _ in range(5)) < 0.2


def test_help_shows_every_command_and_imports_nothing_heavy():
    done = run_help("-X", "importtime")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "dermsynth" in imported
    assert not imported & HEAVY
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded(name):
    target, text = COMMANDS[name]
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert text


TOOLS = [name for name, (target, _) in COMMANDS.items() if "training" not in target]


@pytest.mark.parametrize("name", TOOLS)
def test_every_parameter_of_a_tool_is_explained_in_its_help(name, capsys):
    module, function = COMMANDS[name][0].split(":")
    tool = getattr(importlib.import_module(module), function)
    parameters = list(inspect.signature(tool).parameters)
    assert [p.arg_name for p in docstring_parser.parse(tool.__doc__).params] == parameters
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"usage: python -m dermsynth {name} " in shown
    positional = parameters[0] if parameters[0] != "out" else None
    assert all(f" --{parameter} " in shown for parameter in parameters if parameter != positional)
    assert positional is None or f" {positional.removesuffix('s').upper()}" in shown


@pytest.fixture
def tool(monkeypatch):
    """A tool, and what it was called with."""
    calls = []

    def collect(sources: list[Path], out: Path, size: int = 512, name: str | None = None) -> None:
        """Collect.

        Args:
            sources: folders.
            out: folder.
            size: pixels.
            name: of it.
        """
        if size == 0:
            raise InputError("--size: 0 is no size.")
        if size == 1:
            raise KeyboardInterrupt
        if size == 2:
            raise ZeroDivisionError
        calls.append((sources, out, size, name))

    module = types.ModuleType("a_tool_of_the_tests")
    module.collect = collect
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "collect", (f"{module.__name__}:collect", "collect"))
    return calls


def test_a_tools_input_is_positional_and_the_rest_are_flags(tool):
    assert main(["collect", "a", "b c", "--out", "d", "--size", "64"]) == 0
    assert main(["collect", "--out=d", "a"]) == 0
    assert tool == [([Path("a"), Path("b c")], Path("d"), 64, None), ([Path("a")], Path("d"), 512, None)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["collect", "a"], "collect: --out must be given"),
        (["collect", "--out", "d"], "collect: sources must be given"),
        (["collect", "a", "--out", "d", "--sise", "3"], "Did you mean 'size'?"),
        (["collect", "a", "--out", "d", "--siz", "3"], "Did you mean 'size'?"),
        (["collect", "a", "--out", "d", "--size", "big"], "--size: "),
        (["collect", "a", "--out", "d", "--size", "0"], "--size: 0 is no size."),
        (["colect"], "no command 'colect'. Did you mean collect?"),
        (["juggle"], "See python -m dermsynth --help"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(tool, capsys, arguments, said):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("dermsynth: error: ")
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert not shown.out
    assert not tool


def test_interrupts_and_bugs_are_not_taken_for_mistakes(tool):
    assert main(["collect", "a", "--out", "d", "--size", "1"]) == 130
    with pytest.raises(ZeroDivisionError):
        main(["collect", "a", "--out", "d", "--size", "2"])


def test_the_version_is_said(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dermsynth {__version__}\n"


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_help_names_models_and_data_modules_and_how_to_see_their_keys(stage, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([stage, "--help"])
    words = capsys.readouterr().out.split()
    assert words[:3] == ["usage:", "dermsynth", stage]
    named = {word.rstrip(",.") for word in words}
    assert {*MODELS, *DATA} <= named
    assert "--model.help" in named


@pytest.mark.parametrize("name", [*MODELS, *DATA])
def test_keys_are_shown_by_a_short_name(name, capsys):
    kind = "model" if name in MODELS else "data"
    with pytest.raises(SystemExit, match="0"):
        main(["fit", f"--{kind}.help", name])
    assert f"--{kind}.help={located(name)}" in capsys.readouterr().out


def test_no_command_shows_the_commands(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_a_mistake_of_a_real_process_has_no_traceback():
    done = subprocess.run([sys.executable, "-m", "dermsynth", "fitt"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "dermsynth: error: no command 'fitt'. Did you mean fit?\n"
