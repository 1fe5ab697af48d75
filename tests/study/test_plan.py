"""Ready studies are read, planned, and parsed by the commands that they name."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from dermsynth.cli import main
from dermsynth.study import declaration
from dermsynth.study.checks import check, warnings
from dermsynth.study.plan import plan
from tests.builders import CLASSES, make_set
from tests.study.helpers import content, recipes, write_yaml

ROOT = Path(__file__).parents[2]
READY = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the project's recipes, and with what the ready studies are of."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("ISIC2017", "ISIC2020"):
        (tmp_path / name).mkdir()
    for name in ("derm-t2im", "sca-synth"):
        make_set(tmp_path / "sets" / name, {"NV": 2, "MEL": 2}, "train", "synthetic", train_split_sha256="unknown")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(file, out="out"):
    study = declaration.read(Path(file))
    return study, plan(study, Path(out))


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_ready_studies_are_planned(here, file):
    study, steps = planned(f"configs/studies/{file.name}")
    assert warnings(study, steps) == []
    names = [step.name for step in steps]
    assert len(set(names)) == len(names) == len({step.makes for step in steps})
    for number, step in enumerate(steps):
        assert set(step.needs) <= set(names[:number])
    # One run of each kind is parsed by its command; the others differ in seeds.
    seen = set()
    for step in steps:
        kind = (step.command, *(word for word in step.words if word.startswith(("configs/", "--"))))
        if kind not in seen:
            seen.add(kind)
            check(step, study.file)
    assert {"prepare", "fit", "compare"} <= {step.command for step in steps}
    assert {arm.mix for arm in study.arms} >= {"RealOnly", "OversampledReal"}


def test_there_are_the_studies_that_are_promised():
    assert {file.stem for file in READY} == {
        "derm_t2im",
        "guidance",
        "isic2017_tiny",
        "isic2020_sd15",
        "quickstart",
        "ratios",
        "sca_synth",
    }


def words(steps, name):
    (step,) = [step for step in steps if step.name == name]
    return step


def test_runs_are_arms_by_generators_by_seeds(here):
    _, steps = planned("configs/studies/isic2017_tiny.yaml")
    fits = [step.name for step in steps if step.name.startswith("fit ")]
    assert len(fits) == 2 * 3 + 4 * 2 * 3
    hybrid = words(steps, "fit hybrid-gen1-seed2")
    assert hybrid.needs == ("prepare", "synthetic-seed1")
    line = shlex.join(hybrid.words)
    assert "--arm hybrid --seed_everything 2" in line
    assert "--data.synthetic '[out/sets/synthetic-seed1]'" in line
    assert "--trainer.max_steps 400" in line
    assert "total_steps" not in line  # the schedule follows
    # What the control repeats depends on how many generated images there are, so its runs are of no generator.
    assert words(steps, "fit repeated-seed0").needs == ("prepare", "synthetic-seed0")
    assert "--data.synthetic" not in words(steps, "fit real-seed0").words
    assert words(steps, "fit quarter-gen0-seed0").words[-2:] == ("--data.mix.ratio", "0.25")
    compare = words(steps, "compare")
    assert len(compare.needs) == len(fits)
    assert compare.words[-2:] == ("--out", "out/comparison")
    assert compare.makes == Path("out/comparison/comparison.txt")


def test_each_variant_of_the_images_is_a_set(here):
    _, steps = planned("configs/studies/guidance.yaml")
    line = shlex.join(words(steps, "synthetic-guidance8-seed1").words)
    assert line.endswith("--model.sampling.guidance_scale 8.0")
    assert "--seed_everything 1 --ckpt_path out/generator-seed1/checkpoints/last.ckpt" in line
    assert words(steps, "fit guidance8-gen1-seed0").needs == ("prepare", "synthetic-guidance8-seed1")


def test_images_are_made_in_shards(tmp_path):
    make_set(tmp_path / "real")
    recipes(tmp_path, "base")
    generator = {**content(tmp_path)["generator"], "shards": 2, "count": 5}
    _, steps = planned(write_yaml(tmp_path / "study.yaml", content(tmp_path, generator=generator)))
    line = shlex.join(words(steps, "synthetic-seed0-shard1").words)
    assert line.endswith("--data.count 5 --data.shards 2 --data.shard 1")
    hybrid = words(steps, "fit hybrid-gen0-seed0")
    assert hybrid.needs == ("synthetic-seed0-shard0", "synthetic-seed0-shard1")
    assert "[out/sets/synthetic-seed0-shard0, out/sets/synthetic-seed0-shard1]" in hybrid.words


def test_a_plan_of_the_real_images_is_of_the_studys_own(tmp_path):
    make_set(tmp_path / "real")
    recipes(tmp_path, "base")
    recipe = yaml.safe_load((tmp_path / "generate.yaml").read_text())
    del recipe["data"]["init_args"]["count"]
    recipe["data"]["init_args"] |= {"real": "elsewhere", "match": 1.0}
    write_yaml(tmp_path / "generate.yaml", recipe)
    generator = {key: value for key, value in content(tmp_path)["generator"].items() if key != "count"}
    _, steps = planned(write_yaml(tmp_path / "study.yaml", content(tmp_path, generator=generator)))
    line = shlex.join(words(steps, "synthetic-seed0").words)
    assert line.endswith(f"--data.real {tmp_path / 'real'}")
    # One that is yet to be prepared cannot be counted before.
    data = {"prepare": str(tmp_path / "real"), "options": {"size": 16}, "classes": CLASSES}
    file = write_yaml(tmp_path / "study.yaml", content(tmp_path, generator=generator, data=data))
    study, steps = planned(file, tmp_path / "out")
    check(words(steps, "synthetic-seed0"), study.file)


def test_adopted_images_are_named_as_foreign_and_have_no_generator(here):
    _, steps = planned("configs/studies/derm_t2im.yaml")
    line = shlex.join(words(steps, "fit hybrid-seed0").words)
    assert "--data.synthetic '[sets/derm-t2im]' --data.allow_foreign '[derm-t2im]'" in line


def test_external_sets_are_tested_and_compared_apart(tmp_path):
    make_set(tmp_path / "real")
    make_set(tmp_path / "clinic")
    recipes(tmp_path, "base")
    data = {"set": str(tmp_path / "real"), "classes": CLASSES, "external": {"elsewhere": str(tmp_path / "clinic")}}
    _, steps = planned(write_yaml(tmp_path / "study.yaml", content(tmp_path, data=data)))
    line = shlex.join(words(steps, "test on elsewhere real-seed0").words)
    assert line.endswith(
        "--data.allow_foreign '[clinic]' --data.synthetic '[]' --run out/external/elsewhere/real-seed0"
    )
    assert words(steps, "compare on elsewhere").makes == Path("out/external/elsewhere/comparison/comparison.txt")


def test_a_dry_run_is_a_script_and_makes_nothing(here, capsys):
    assert main(["study", "configs/studies/quickstart.yaml", "--out", "out", "--dry-run"]) == 0
    script = here / "study.sh"
    script.write_text(capsys.readouterr().out)
    assert not (here / "out").exists()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    _, steps = planned("configs/studies/quickstart.yaml")
    # A stand-in for Python prints what it is called with.
    (here / "python").write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@"; echo\n')
    (here / "python").chmod(0o755)
    done = subprocess.run(["bash", script], env={"PATH": f"{here}:/usr/bin:/bin"}, capture_output=True, text=True)
    called = [tuple(line.split("\0")[2:-1]) for line in done.stdout.splitlines()]
    assert called == [step.words for step in steps]


def test_a_download_that_is_missing_stops_the_study_and_not_its_preview(here, capsys):
    (here / "ISIC2017").rmdir()
    words = ["study", "configs/studies/isic2017_tiny.yaml", "--out", "out"]
    assert main(words) == 2
    said = "configs/studies/isic2017_tiny.yaml, line 5: data.prepare: no such folder: ISIC2017, from "
    assert said in capsys.readouterr().err
    assert main([*words, "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert [line.startswith(f"# warning: {said}") for line in script.splitlines() if "warning" in line] == [True]
    assert "python -m dermsynth prepare ISIC2017 --out out/sets/real" in script
    assert not (here / "out").exists()
