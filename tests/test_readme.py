"""Every command of the README is parsed by the real command line, and every file it names exists."""

import functools
import importlib
import itertools
import re
import shlex
import shutil
import string
import subprocess
from pathlib import Path

import pytest

from dermsynth import cli
from dermsynth.classification import vit
from dermsynth.diffusion.parts import load_parts
from dermsynth.errors import InputError
from dermsynth.run.configuration import read_configuration

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    line.strip() for block in BLOCKS for line in block.splitlines() if line.strip().startswith("python -m dermsynth ")
]


def test_the_readme_has_commands():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line, monkeypatch):
    line = re.split(r" (?:&&|\|\|) ", line)[0]
    for name, value in {"$run": "runs/vit-real-seed0", "$arm": "real", "$seed": "0"}.items():
        line = line.replace(name, value)
    words = shlex.split(line)[3:]
    monkeypatch.chdir(ROOT)
    if words[0] in ("fit", "validate", "test", "predict"):
        config = words[words.index("--config") + 1]
        if config.startswith("runs/"):  # what an earlier command of the README writes
            words[words.index("--config") + 1] = "configs/tiny/vit.yaml"
            words += ["--run", "runs/x"]
        assert read_configuration(words[0], words[1:])["model"]
        return
    module, name = cli.COMMANDS[words[0]][0].split(":")
    function, called = getattr(importlib.import_module(module), name), []

    @functools.wraps(function)
    def record(**values):
        called.append(values)

    monkeypatch.setattr(f"{module}.{name}", record)
    assert cli.main(words) == 0
    assert called[0]["out"] or words[0] == "study"  # which has a folder by itself


def in_bash(words, folder):
    """The words that bash makes of some, as in a folder."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {words}"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_each_walk_has_folders_of_its_own_and_compares_its_own_runs(tmp_path):
    singles = [run for line in COMMANDS for run in re.findall(r"--(?:run|out) ([^\s$]+)", line)]
    assert len(singles) == len(set(singles))
    walks = {}
    for block in BLOCKS:
        for pattern in re.findall(r"dermsynth compare (\S+)", block):
            loops = {name: words.split() for name, words in re.findall(r"for (\w+) in (.+); do", block)}
            (template,) = re.findall(r" run=(\S+)", block)
            rounds = (dict(zip(loops, values, strict=True)) for values in itertools.product(*loops.values()))
            walks[pattern] = {string.Template(template).substitute(values) for values in rounds}
    assert [len(runs) for runs in walks.values()] == [9, 15]
    every = [*singles, *itertools.chain(*walks.values())]
    assert len(every) == len(set(every))
    for run in every:
        (tmp_path / run).mkdir(parents=True, exist_ok=True)
    for pattern, runs in walks.items():
        assert set(in_bash(pattern, tmp_path)) == runs


def fetched(line_start):
    """The hub id, folder and files of a download that the README names."""
    (line,) = re.findall(rf"^{line_start}.*", TEXT.replace("\\\n", ""), flags=re.MULTILINE)
    _, _, hub_id, _, folder, *files = in_bash(line, ROOT)
    return hub_id, folder, files


def test_what_it_fetches_of_stable_diffusion_is_what_is_read(base, tmp_path):
    hub_id, folder, files = fetched("hf download stable-diffusion")
    assert f"base: {hub_id}\n" in (ROOT / "configs/dreambooth_sd15.yaml").read_text()
    assert f"--model.base {folder}`" in TEXT
    copy = tmp_path / "copy"
    (copy / "tokenizer").mkdir(parents=True)
    whole = load_parts(base)
    # Our tokenizers are in the newer format, that of Stable Diffusion 1.5 is in the older one.
    whole.tokenizer.backend_tokenizer.model.save(str(copy / "tokenizer"))
    for name in files:
        if not (copy / name).exists():
            (copy / name).parent.mkdir(exist_ok=True)
            shutil.copy(Path(base) / name, copy / name)
    assert sorted(files) == sorted(str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file())
    parts = load_parts(str(copy))
    assert parts.tokenize(["an image of sks"]).equal(whole.tokenize(["an image of sks"]))
    for name in set(files) - {"tokenizer/tokenizer_config.json"}:
        (copy / name).rename(tmp_path / "aside")
        with pytest.raises(InputError):
            load_parts(str(copy))
        (tmp_path / "aside").rename(copy / name)


def test_what_it_fetches_of_the_vit_is_what_is_read(tmp_path):
    hub_id, folder, files = fetched("hf download google")
    assert f"model: {hub_id} " in (ROOT / "configs/vit_b16.yaml").read_text()
    assert f"--model.model {folder}`" in TEXT
    tiny = {"model_type": "vit", "image_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vit.build(tiny, ["benign", "malignant"]).save_pretrained(tmp_path)
    assert sorted(files) == sorted(file.name for file in tmp_path.iterdir())
    assert vit.build(str(tmp_path), ["benign", "malignant"]).config.hidden_size == 8


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
    for target in re.findall(r"`?make (?:\w+=\S+ )?(\w+)`?", TEXT):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
