"""Every command of LightningCLI.md is run, in order, in one folder; its files are saved as it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    return BLOCK.findall((ROOT / "LightningCLI.md").read_text(encoding="utf-8"))


def test_every_block_is_of_a_kind_that_is_run():
    assert {kind for kind, _ in blocks()} == {"bash", "console", "python", "yaml"}


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shell = f'python() {{ "{sys.executable}" "$@"; }}; '
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(command):
        return subprocess.run(
            ["bash", "-c", shell + command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    for kind, text in blocks():
        if kind in ("python", "yaml"):
            name = text.splitlines()[0].removeprefix("# ")
            assert re.fullmatch(r"\w+\.(py|yaml)", name)
            (tmp_path / name).write_text(text)
        elif kind == "console":
            command, *expected = text.removeprefix("$ ").splitlines()
            done = run(command)
            assert done.returncode == 2, done.stdout
            assert [line for line in expected if line not in done.stdout] == [], done.stdout
            assert "Traceback" not in done.stdout
        else:
            for command in text.splitlines():
                done = run(command)
                assert done.returncode == 0, f"{command}\n{done.stdout}"
    for name in (
        "real-seed0/fit.yaml",
        "real-seed0/predictions.csv",
        "longer/finished",
        "patient/finished",
        "mine-seed0/test.yaml",
    ):
        assert (tmp_path / "runs" / name).is_file()
    assert [path.name for path in (tmp_path / "runs").glob("debug/*")] == []
    assert (tmp_path / "comparison/comparison.csv").is_file()
    assert "lr: 0.0001" in (tmp_path / "resolved.yaml").read_text()
