"""`benchmarks.gpu` on a CPU: the same parts with tiny models, of which some fail, take too long or are left out."""

import json
import os
import re
import statistics
import time
from dataclasses import replace

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.budget import run
from benchmarks.gpu.numbers import numbers
from benchmarks.gpu.parts import PARTS, PLAIN, RECIPE, TINY, Part
from benchmarks.gpu.process import alone
from benchmarks.gpu.tables import tables
from tests.builders import make_configs

IMPOSSIBLE = Part("vit_b16", "impossible", 30, flags=("--model.label_smoothing", "2"))
ENDLESS = replace(PARTS[0], how="endless", seconds=0.01)
LONG = replace(PARTS[0], how="long", seconds=1e6)
ALL = [IMPOSSIBLE, ENDLESS, LONG, *PARTS]
KEYS = {
    *("batch_size", "images_per_second", "tflop_an_image", "tflops", "share_of_peak", "ratio"),
    *("allocated_gb", "reserved_gb", "fits_24_gb", "fits_80_gb", "seconds_to_first_step", "seconds"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    work = tmp_path_factory.mktemp("gpu")
    timings = {kind: replace(timing, laps=1) for kind, timing in TINY.timings.items()}
    small = timings["dreambooth"]
    timings["dreambooth"] = replace(small, flags=tuple("16" if word == "64" else word for word in small.flags))
    size = replace(TINY, photographs=(48, 32), timings=timings)
    return run(ALL, make_configs(work / "configs"), size, 100_000, work)


@pytest.fixture(scope="module")
def result(found):
    return numbers(ALL, found)


def test_every_part_has_its_numbers_whatever_the_others_do(result):
    assert result["device"] == "cpu"
    assert list(result["parts"]) == [part.name for part in ALL]
    assert {part.name: set(result["parts"][part.name]) for part in PARTS} == {part.name: KEYS for part in PARTS}
    for part in PARTS:
        row = result["parts"][part.name]
        assert row["batch_size"] == 4
        assert row["images_per_second"] > 0
        assert row["tflops"] == pytest.approx(row["tflop_an_image"] * row["images_per_second"])
        assert row["allocated_gb"] > 0.1  # torch alone
        unknown = "share_of_peak", "reserved_gb", "fits_24_gb", "fits_80_gb"
        assert [row[key] for key in unknown] == [None] * 4, "nothing is said of a GPU"
    assert json.loads(json.dumps(result)) == result


def test_a_part_that_fails_or_finds_no_time_is_a_row(result):
    impossible, endless, long = (result["parts"][part.name] for part in (IMPOSSIBLE, ENDLESS, LONG))
    assert impossible["failed"].startswith("InputError: label_smoothing: 2.0")
    assert endless["failed"] == "stopped after 0 s"
    assert re.fullmatch(r"\d+ of 1000000 s were left", long["left_out"])
    lines = tables(ALL, result).splitlines()
    for part in ALL:
        assert sum(line.startswith(f"| {part.name} |") for line in lines) == (1 if part.plain else 2)
    assert {line.count("|") for line in lines if line} == {8, 7}  # columns of speed, columns of memory


def test_the_ratio_is_that_of_the_same_run(found, result):
    def speed(name):
        raw = found["parts"][name]
        return raw["images"] / len(raw["laps"]) / statistics.median(raw["laps"])

    with_plain = {part.recipe for part in PARTS if part.plain}
    assert with_plain == {"dreambooth_sd15", "dreambooth_sd15_lora", "generate_sd15", "vit_b16"}
    for part in PARTS:
        ratio = result["parts"][part.name]["ratio"]
        if part.plain or part.recipe not in with_plain:
            assert ratio is None
        else:
            assert ratio == pytest.approx(speed(part.name) / speed(f"{part.recipe}: {PLAIN}"))


def test_the_work_of_an_image_is_that_of_a_count_by_hand(result):
    width, tokens, patches, inner, layers = 32, 17, 16, 64, 2  # of 32 pixels in patches of 8, and the class token
    # A product of a × b and b × c is 2abc; backward one for the input and one for the weights.
    products = 3 * 2 * tokens * (4 * width**2 + 2 * width * inner)  # query, key, value, output; the two of the MLP
    attention = 7 * 2 * tokens**2 * width  # 2 forward, 5 backward with the scores, which are computed again
    patching = 2 * 2 * patches * (3 * 8 * 8) * width  # pixels have no gradient
    head = 3 * 2 * width * 2
    by_hand = patching + layers * (products + attention) + head
    for how in (PLAIN, RECIPE):
        assert result["parts"][f"vit_b16: {how}"]["tflop_an_image"] * 1e12 == pytest.approx(by_hand)


def test_the_cache_leaves_work_out_and_the_plain_loop_does_not(result):
    work = {name: row.get("tflop_an_image") for name, row in result["parts"].items()}
    for recipe in ("dreambooth_sd15", "dreambooth_sd15_lora"):
        plain, cached, fast, own = (work[part.name] for part in PARTS[:8] if part.recipe == recipe)
        assert cached < fast == own == plain


def test_what_fits_a_card_and_what_the_device_could_do():
    timed = {"images": 30, "laps": [1.0, 2.0, 90.0], "batch_size": 4, "peak_memory_gb": 20.0, "flops_per_image": 1e13}
    timed |= {"seconds_to_first_step": 9.0, "seconds": 30.0}

    def row(outcome, device="NVIDIA H200", memory_gb=150.0):
        return numbers([PARTS[3]], {"device": device, "memory_gb": memory_gb, "parts": {PARTS[3].name: outcome}})[
            "parts"
        ][PARTS[3].name]

    fitting = row({**timed, "reserved_gb": 23.0})
    assert (fitting["fits_24_gb"], fitting["fits_80_gb"]) == (True, True)
    assert fitting["images_per_second"] == 5  # ten images of a lap in the median of 2 s
    assert fitting["share_of_peak"] == pytest.approx(50 / 989.4)
    large = row({**timed, "reserved_gb": 25.0}, "a GPU of tomorrow")
    assert (large["fits_24_gb"], large["fits_80_gb"], large["share_of_peak"]) == (False, True, None)
    too_large = {"failed": "out of memory", "seconds": 9.0}
    assert row(too_large) == {**too_large, "fits_24_gb": False, "fits_80_gb": False}
    assert row(too_large, memory_gb=25.0) == {**too_large, "fits_24_gb": False, "fits_80_gb": None}
    table = tables([PARTS[3]], {"device": "x", "parts": {PARTS[3].name: row(too_large)}})
    assert "| failed: out of memory |  | no | no |" in table


def out_of_memory():
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")


def test_a_process_that_is_killed_or_runs_out_of_memory_says_so(tmp_path):
    assert alone(os.abort, (), 600, tmp_path / "log") == {"failed": "it was killed (exit status -6)"}
    assert alone(out_of_memory, (), 600, tmp_path / "log") == {"failed": "out of memory"}
    assert "Tried to allocate" in (tmp_path / "log").read_text()
    assert alone(time.sleep, (600,), 0.5, tmp_path / "log") == {"failed": "stopped after 0 s"}


def test_the_command_ends_with_json_and_writes_the_tables(tmp_path, capsys):
    out = tmp_path / "tables.md"
    command.main(["--size", "tiny", "--out", str(out)], [LONG])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["size"], printed["device"]) == ("tiny", "cpu")
    assert printed["parts"][LONG.name]["left_out"]
    assert out.read_text() == f"{tables([LONG], printed)}\n"
    command.main(["--size", "tiny"], [LONG])
    lines = capsys.readouterr().out.splitlines()
    begin, end = lines.index(command.BEGIN), lines.index(command.END)
    assert "\n".join(lines[begin + 1 : end]).count(LONG.name) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "0"], "--seconds: 0.0 must be"),
        (["--seconds", "nan"], "--seconds: nan must be"),
        (["--seconds", "inf"], "--seconds: inf must be"),
        (["--out", "nowhere/tables.md"], "--out: nowhere is no folder"),
        (["--size", "full", "--models", "nowhere"], "--models: nowhere/stable-diffusion-v1-5 has no model_index.json"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(words, said, here, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(SystemExit):
        command.main(words)
    assert said in capsys.readouterr().err


def test_without_a_gpu_full_size_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main(["--size", "full"])
    assert "torch sees no GPU" in capsys.readouterr().err
