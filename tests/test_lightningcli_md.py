"""Every command of LightningCLI.md is run, in order, in one folder; its files are saved as it says.

They run in processes that are forked from one that has imported everything: starting one takes seconds, and there
are many. That a process of one's own works too is tested in test_cli and test_training.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from dermsynth.cli import main
from dermsynth.run.configuration import read_configuration
from tests.processes import PROCESSES

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
TEXT = (ROOT / "LightningCLI.md").read_text(encoding="utf-8")
PROSE = BLOCK.sub("", TEXT)
FLAGS = re.findall(r"^\| `(--[^`]+)` \|", PROSE, flags=re.MULTILINE)


def blocks():
    return BLOCK.findall(TEXT)


def page_file(name):
    """The content of a file that the page has its reader save."""
    (text,) = [text for _, text in blocks() if text.startswith(f"# {name}\n")]
    return text


def call(words, out, log):
    """What `python -m dermsynth WORDS > OUT 2> LOG` does, in the current folder."""
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = ["dermsynth", *words]
    for descriptor, path in ((1, out), (2, log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.exit(main())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command line in an empty folder with configs/; gives status and output."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for name, value in {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)

    def run(command):
        program, words = shlex.split(command)[:3], shlex.split(command)[3:]
        assert program == ["python", "-m", "dermsynth"], command
        log = tmp_path / "log"
        log.write_text("")
        words, out = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, log)
        process = PROCESSES.Process(target=call, args=(words, out, log))
        process.start()
        process.join()
        return process.exitcode, log.read_text()

    return run


def test_every_block_is_of_a_kind_that_is_run():
    # Commands for a cluster are `sh`: test_slurm parses them.
    assert {kind for kind, _ in blocks()} == {"bash", "console", "python", "yaml", "sh"}


def test_the_table_of_flags_is_found():
    assert len(FLAGS) == PROSE.count("| `--") >= 7


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_the_table_changes_what_it_says(flag, monkeypatch):
    monkeypatch.chdir(ROOT)
    key, text = shlex.split(flag)
    recipe = ["--config", "configs/tiny/vit.yaml", "--config", "configs/arms/hybrid.yaml", "--run", "some/run"]
    config = read_configuration("fit", [*recipe, key, text])
    path = key.removeprefix("--").removesuffix("+").split(".")
    value = config[path[0]]
    for name in path[1:]:
        value = value["init_args"][name]
    given = yaml.safe_load(text)
    if key.endswith("+"):
        assert value == [*read_configuration("fit", recipe)["data"]["init_args"]["synthetic"], given]
    elif isinstance(value, dict) and "class_path" in value:
        assert value["class_path"].endswith(given)
    else:
        assert value == (float(given) if isinstance(value, float) else given)  # 1e-4 is text in YAML 1.1


def test_every_flag_of_the_text_exists(capsys):
    named = {words.split()[0] for words in INLINE.findall(PROSE) if words.startswith("--")}
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    known = capsys.readouterr().out
    by_class = {flag for flag in named if flag.startswith(("--data.", "--model."))}  # tested in the table
    assert len(named - by_class) >= 6
    assert [flag for flag in named - by_class if not re.search(rf"{flag.replace('-', '[-_]')}\b", known)] == []
    assert by_class <= {flag.split()[0] for flag in FLAGS}


def test_commands_of_the_text_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "my_parts.py").write_text(page_file("my_parts.py"))
    run_file = tmp_path / "runs/NAME/fit.yaml"
    run_file.parent.mkdir(parents=True)
    run_file.write_text((ROOT / "configs/tiny/vit.yaml").read_text() + "run: runs/NAME\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    commands = {words for words in INLINE.findall(PROSE) if words.startswith("python -m dermsynth ")}
    shown = {}
    for command in sorted(commands):
        stage, *words = shlex.split(command)[3:]
        if "--help" in words or "--model.help" in words:
            with pytest.raises(SystemExit) as stop:
                main([stage, *words])
            assert stop.value.code == 0
            shown[command] = capsys.readouterr().out
        else:
            assert read_configuration(stage, words)["run"] == "runs/NAME"
    assert len(commands) == 3
    assert "--size" in shown["python -m dermsynth prepare --help"]
    assert "--model.width" in shown["python -m dermsynth fit --model.help my_parts.SmallNet"]


@pytest.mark.slow
def test_the_page_does_what_it_says(run):
    for kind, text in blocks():
        if kind in ("python", "yaml"):
            name = text.splitlines()[0].removeprefix("# ")
            assert re.fullmatch(r"\w+\.(py|yaml)", name)
            Path(name).write_text(text)
        elif kind == "console":
            command, *expected = text.removeprefix("$ ").splitlines()
            status, shown = run(command)
            assert status == 2, shown
            assert [line for line in expected if line not in shown] == [], shown
            assert "Traceback" not in shown
        elif kind == "bash":
            for command in text.splitlines():
                status, shown = run(command)
                assert status == 0, f"{command}\n{shown}"
    for name in ("real-seed0/predictions.csv", "longer/finished", "patient/finished", "mine-seed0/test.yaml"):
        assert (Path("runs") / name).is_file()
    assert not Path("runs/debug").exists()
    assert not Path("runs/x").exists()
    assert Path("comparison/comparison.csv").is_file()
    assert "lr: 0.0001" in Path("resolved.yaml").read_text()
