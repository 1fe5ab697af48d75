"""What `compare` reads of runs that a study made: arm, seed, generator, control; margin and family."""

import numpy as np
import pytest
import yaml

from dermsynth.errors import InputError
from dermsynth.evaluation import measure, metrics
from dermsynth.evaluation.runs import inputs_of, read_run
from dermsynth.evaluation.statistics import resampling_weights
from dermsynth.tools.compare import compare
from tests.tools.compared import draw_runs, read_table

MIXES = {"real": "RealOnly", "hybrid": "Ratio", "repeated": "OversampledReal"}


def declare(folder, arm, seed, generator=None, steps=100):
    """Its fit.yaml, and the set that it was shown."""
    images = folder.parent / f"synthetic{generator}"
    images.mkdir(exist_ok=True)
    (images / "dataset.json").write_text(f'{{"generator_seed": {0 if generator is None else generator}}}')
    mix = {"class_path": f"dermsynth.data.mixing.policies.{MIXES[arm.rstrip('0123456789')]}"}
    data = {"init_args": {"mix": mix, "synthetic": [str(images)]}}
    run = {"arm": arm, "seed_everything": seed, "trainer": {"max_steps": steps}, "data": data}
    (folder / "fit.yaml").write_text(yaml.safe_dump(run))
    return folder


@pytest.fixture
def drawn(tmp_path):
    """Two seeds of the real arm, two seeds of two generators of the hybrid one; the folders are named otherwise."""
    folders, labels, p = draw_runs(tmp_path, {"a": 1.0, "b": 1.5}, seeds=(1, 2, 3, 4))
    kept = [declare(folders[n], "real", n + 1) for n in (0, 1)]
    kept += [declare(folders[4 + n], "hybrid", n % 2 + 1, generator=n // 2) for n in range(4)]
    return kept, labels, p


def test_arm_seed_and_generator_are_read_from_the_run(drawn, tmp_path, capsys):
    folders, labels, p = drawn
    compare(folders, tmp_path / "out")
    table = read_table(tmp_path / "out")
    right = {name: float((of.argmax(axis=1) == labels).mean()) for name, of in p.items()}
    real = np.mean([right["a-seed1"], right["a-seed2"]])
    for generator, names in enumerate((("b-seed1", "b-seed2"), ("b-seed3", "b-seed4"))):
        row = table["hybrid", f"generator {generator}", "accuracy", ""]
        mean = np.mean([right[name] for name in names])
        assert [float(row["value"]), float(row["difference"])] == pytest.approx([mean, mean - real], abs=2e-6)
        for seed, name in enumerate(names, start=1):
            row = table["hybrid", f"seed {seed}, generator {generator}", "accuracy", ""]
            # Its partner is the baseline's run of the same seed, which knows no generator.
            expected = [right[name], right[name] - right[f"a-seed{seed}"]]
            assert [float(row["value"]), float(row["difference"])] == pytest.approx(expected, abs=2e-6)
    row = table["hybrid", "mean", "accuracy", ""]
    pairs = [right[f"b-seed{n + 1}"] - right[f"a-seed{n % 2 + 1}"] for n in range(4)]
    assert float(row["difference_sd"]) == pytest.approx(np.std(pairs, ddof=1), rel=1e-4)
    text = " ".join(capsys.readouterr().out.split())
    assert "2 seeds × 2" in text
    assert "hybrid minus real in accuracy, by the generator of its images: +" in text
    assert "The generated images are of one generator" not in text


def test_one_generator_is_told(drawn, tmp_path, capsys):
    compare(drawn[0][:4], tmp_path / "out")
    assert "The generated images are of one generator" in " ".join(capsys.readouterr().out.split())
    assert ("hybrid", "generator 0", "accuracy", "") not in read_table(tmp_path / "out")


def test_a_run_whose_configuration_names_no_arm_is_known_by_its_folder(drawn):
    folder = drawn[0][0]
    assert read_run(folder).arm == "real"
    (folder / "fit.yaml").write_text((folder / "fit.yaml").read_text().replace("arm: real", "arm: null"))
    assert (read_run(folder).arm, read_run(folder).seed) == ("a", 1)


def test_predictions_on_another_set_are_known_by_their_tests_configuration(drawn):
    folder = drawn[0][2]
    (folder / "fit.yaml").rename(folder / "test.yaml")
    assert (read_run(folder).arm, read_run(folder).key) == ("hybrid", (1, 0))


@pytest.fixture
def elsewhere(drawn, tmp_path):
    """Tests of the runs on an external set, of no generated images, in folders of their own."""
    return [move_predictions(folder, tmp_path / "external") for folder in drawn[0]]


def move_predictions(run, out):
    (folder := out / run.name).mkdir(parents=True)
    (run / "predictions.csv").rename(folder / "predictions.csv")
    config = yaml.safe_load((run / "fit.yaml").read_text()) | {"ckpt_path": str(run / "checkpoints" / "best.ckpt")}
    config["data"]["init_args"]["synthetic"] = []
    (folder / "test.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_predictions_on_another_set_are_of_the_run_that_was_tested(elsewhere, tmp_path, capsys):
    assert [read_run(folder).generator for folder in elsewhere] == [None, None, 0, 0, 1, 1]
    compare(elsewhere, tmp_path / "out")
    assert ("hybrid", "generator 1", "accuracy", "") in read_table(tmp_path / "out")
    assert SENTENCE in " ".join(capsys.readouterr().out.split())


def test_a_comparison_is_of_what_it_reads_of_each_run(elsewhere, drawn):
    before = inputs_of(elsewhere)
    declare(drawn[0][2], "hybrid", 1, generator=0, steps=50)
    after = inputs_of(elsewhere)
    assert {role for role in after if after[role] != before[role]} == {f"{drawn[0][2].name}/fit.yaml"}
    # Where the run is gone, the test's own configuration is all there is.
    (drawn[0][2] / "fit.yaml").unlink()
    assert f"{drawn[0][2].name}/test.yaml" in inputs_of(elsewhere)


SENTENCE = (
    "No arm here repeats real images for as many steps (OversampledReal), so this cannot tell generated images from"
)


def test_no_verdict_without_its_control(drawn, tmp_path, capsys):
    folders, _, _ = drawn
    compare(folders, tmp_path / "out")
    assert SENTENCE in " ".join(capsys.readouterr().out.split())
    more, _, _ = draw_runs(tmp_path / "more", {"a": 1.0, "c": 1.2}, seeds=(1, 2))
    control = [declare(folder, "repeated", n + 1, steps=50) for n, folder in enumerate(more[2:])]
    for folder, same in zip(more[:2], ("a-seed1", "a-seed2"), strict=True):  # of the images of these
        declare(folder, "real", int(same[-1]))
    hybrid, _, _ = draw_runs(tmp_path / "hybrid", {"a": 1.0, "b": 1.5}, seeds=(1, 2))
    added = [declare(folder, "hybrid", n + 1, generator=0) for n, folder in enumerate(hybrid[2:])]
    compare([*more[:2], *control, *added], tmp_path / "out")
    assert SENTENCE in " ".join(capsys.readouterr().out.split())  # fewer steps are no control
    for n, folder in enumerate(control):
        declare(folder, "repeated", n + 1)
    compare([*more[:2], *control, *added], tmp_path / "out")
    assert SENTENCE not in " ".join(capsys.readouterr().out.split())


def test_the_margin_is_held_against_the_lower_end_of_the_90_percent_interval(drawn, tmp_path, capsys):
    folders = drawn[0][:4]
    runs = {folder.name: read_run(folder) for folder in folders}
    weights = resampling_weights(40)[:, runs["a-seed1"].group_index]
    right = {name: run.probabilities.argmax(axis=1) == run.label_index for name, run in runs.items()}
    difference = np.mean([right["a-seed1"], right["a-seed2"]], axis=0) - np.mean(
        [right["b-seed1"], right["b-seed2"]], 0
    )
    resampled = (weights * difference).sum(axis=1) / weights.sum(axis=1)
    low = float(np.quantile(resampled, 0.05))
    assert low < 0  # real against the better hybrid
    for margin, said in ((-low + 1e-4, "No harm by the margin of"), (-low - 1e-4, "Harm by more than the margin of")):
        compare(folders, tmp_path / "out", baseline="hybrid", margin=margin)
        row = read_table(tmp_path / "out")["real", "mean", "accuracy", ""]
        assert float(row["difference_low_90"]) == pytest.approx(low, abs=1e-6)
        assert said in " ".join(capsys.readouterr().out.split())


def test_of_a_metric_whose_lower_values_are_better_harm_is_a_rise(drawn, tmp_path, monkeypatch, capsys):
    def wrong(confusion):
        return 1 - metrics.accuracy(confusion)

    error = metrics.AnswerMetric(
        name="error", title="error rate", unit=metrics.Unit.POINTS, overall=True, per_class=False, formula=wrong,
        leads=False, higher_is_better=False,
    )  # fmt: skip
    monkeypatch.setitem(metrics.METRICS, "error", error)
    overall = (*metrics.OVERALL, "error")
    for module in (metrics, measure):
        monkeypatch.setattr(module, "OVERALL", overall)
    folders = drawn[0][:4]
    for arm, against in (("real", "hybrid"), ("hybrid", "real")):
        for margin in (0.001, 0.2):  # as of accuracy, of which an error is the rest
            verdicts = {}
            for primary in ("accuracy", "error"):
                compare(folders, tmp_path / "out", baseline=against, primary=primary, margin=margin)
                text = " ".join(capsys.readouterr().out.split())
                verdicts[primary] = "No harm by the margin" in text, "Harm by more than the margin" in text
                assert ("Lower is better: error rate." in text) == (primary == "error")
            table = read_table(tmp_path / "out")
            high, low = (table[arm, "mean", name, ""] for name in ("error", "accuracy"))
            assert (high["difference_low_90"], low["difference_high_90"]) == ("", "")
            assert float(high["difference_high_90"]) == pytest.approx(-float(low["difference_low_90"]), abs=1e-6)
            assert verdicts["error"] == verdicts["accuracy"]
            assert sum(verdicts["error"]) == 1
    assert verdicts["error"] == (True, False)  # of the better arm


def test_holm_counts_the_family_and_nothing_is_concluded_of_the_others(tmp_path, capsys):
    folders, _, _ = draw_runs(tmp_path, {"real": 0.2, "x1": 2.5, "x2": 2.5, "x3": 2.5})
    compare(folders, tmp_path / "out", family=["x1", "x2"])
    table = read_table(tmp_path / "out")
    assert table["x3", "mean", "accuracy", ""]["p_holm"] == ""
    p = [float(table[arm, "mean", "accuracy", ""]["p"]) for arm in ("x1", "x2")]
    adjusted = [float(table[arm, "mean", "accuracy", ""]["p_holm"]) for arm in ("x1", "x2")]
    assert min(adjusted) == pytest.approx(2 * min(p), rel=1e-4)
    text = " ".join(capsys.readouterr().out.split())
    assert "Holm's adjustment for 2 comparisons on accuracy: x1 p" in text
    assert "x3: accuracy is" not in text
    assert "it is not among the comparisons that were planned (x1, x2)" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"margin": 0.0}, "--margin: 0 is no margin: expected a fraction above 0"),
        ({"margin": float("nan")}, "--margin: nan is no margin: expected a fraction above 0"),
        ({"margin": 2.0}, "--margin: 2 is no margin: expected a fraction above 0"),
        ({"family": ["x"]}, "--family: x is not an arm that is compared with real: hybrid."),
        ({"family": []}, "--family: it names no arm."),
        ({"family": ["hybrid", "hybrid"]}, "--family: hybrid is named twice."),
        ({"family": ["real"]}, "--family: real is not an arm that is compared with real: hybrid."),
    ],
)
def test_a_margin_and_a_family_that_are_none(drawn, tmp_path, words, said):
    with pytest.raises(InputError, match=said):
        compare(drawn[0], tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()
