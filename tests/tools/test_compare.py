import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, roc_auc_score

from dermsynth.errors import InputError
from dermsynth.evaluation.runs import read_run
from dermsynth.evaluation.statistics import resampling_weights
from dermsynth.tools.compare import compare
from tests.tools.compared import BINARY, draw_runs, read_table, write_run


def test_two_arms_from_files_to_table_text_and_plot(tmp_path, capsys):
    folders, labels, p = draw_runs(tmp_path, {"hybrid": 1.6, "real": 1.0})
    out = tmp_path / "results" / "first"
    compare(folders, out)
    table = read_table(out)
    for arm in ("real", "hybrid"):
        accuracies = [accuracy_score(labels, p[f"{arm}-seed{n}"].argmax(axis=1)) for n in (1, 2)]
        aurocs = [roc_auc_score(labels, p[f"{arm}-seed{n}"][:, 1]) for n in (1, 2)]
        accuracy, auroc = table[arm, "mean", "accuracy", ""], table[arm, "mean", "auroc", ""]
        assert float(accuracy["value"]) == pytest.approx(np.mean(accuracies), rel=1e-5)
        assert float(accuracy["sd"]) == pytest.approx(np.std(accuracies, ddof=1), rel=1e-5, abs=1e-9)
        assert float(auroc["value"]) == pytest.approx(np.mean(aurocs), rel=1e-5)
        assert float(accuracy["low"]) < float(accuracy["value"]) < float(accuracy["high"])
        assert float(table[arm, "seed 2", "auroc", ""]["value"]) == pytest.approx(aurocs[1], rel=1e-5)
    difference = table["hybrid", "mean", "accuracy", ""]
    expected = float(difference["value"]) - float(table["real", "mean", "accuracy", ""]["value"])
    assert float(difference["difference"]) == pytest.approx(expected, abs=2e-6)
    assert float(difference["difference_low"]) < expected < float(difference["difference_high"])
    assert difference["p_holm"] == difference["p"] != ""
    assert table["real", "mean", "accuracy", ""]["difference"] == ""

    # Pairing must make the interval of the difference narrower than two separate ones would.
    def width(row, name):
        return float(row[f"{name}high"]) - float(row[f"{name}low"])

    apart = np.hypot(*(width(table[arm, "mean", "accuracy", ""], "") for arm in ("real", "hybrid")))
    assert width(difference, "difference_") < apart

    # The interval is over groups, of the mean over seeds: the same by another road.
    runs = [read_run(folder) for folder in folders if folder.name.startswith("real")]
    right = np.mean([run.probabilities.argmax(axis=1) == run.label_index for run in runs], axis=0)
    weights = resampling_weights(40)[:, runs[0].group_index]
    resampled = np.average(np.broadcast_to(right, weights.shape), axis=1, weights=weights)
    real = table["real", "mean", "accuracy", ""]
    assert [float(real["low"]), float(real["high"])] == pytest.approx(np.percentile(resampled, [2.5, 97.5]), rel=1e-5)

    printed = capsys.readouterr().out
    assert printed.startswith((out / "comparison.txt").read_text(encoding="utf-8"))
    assert "Baseline: real (by its name)" in printed
    assert "patient-" not in printed + (out / "comparison.csv").read_text()
    with Image.open(out / "comparison.png") as picture:
        assert picture.width > 1500
    assert sorted(f.name for f in out.iterdir()) == [
        ".comparing",
        "comparison.csv",
        "comparison.png",
        "comparison.txt",
        "made_from.json",
    ]


def test_mcnemar_is_on_the_ensemble_and_on_each_pair_of_seeds(tmp_path):
    folders, labels, p = draw_runs(tmp_path, {"real": 1.0, "hybrid": 1.4}, seeds=(1, 2, 3))
    compare(folders, tmp_path / "out")
    table = read_table(tmp_path / "out")
    decided = {f"seed {n}": [p[f"{arm}-seed{n}"].argmax(axis=1) for arm in ("real", "hybrid")] for n in (1, 2, 3)}
    decided["ensemble"] = [
        np.mean([p[f"{arm}-seed{n}"] for n in (1, 2, 3)], axis=0).argmax(axis=1) for arm in ("real", "hybrid")
    ]
    for seeds, (real, hybrid) in decided.items():
        row = table["hybrid", seeds, "accuracy", ""]
        b = int(((real == labels) & (hybrid != labels)).sum())
        c = int(((real != labels) & (hybrid == labels)).sum())
        assert (row["only_baseline_correct"], row["only_arm_correct"]) == (str(b), str(c))
        assert float(row["p"]) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-5)
        assert row["test"] == "exact McNemar"
    assert table["hybrid", "ensemble", "auroc", ""]["test"] == "DeLong"


def test_three_classes_four_arms_holm_and_the_first_given_as_baseline(tmp_path, capsys):
    skills = {"plain": 1.0, "x1": 1.3, "x2": 1.5, "x3": 0.8}
    folders, _, _ = draw_runs(tmp_path, skills, classes=("NV", "MEL", "SK"))
    compare(folders, tmp_path / "out", primary="balanced_accuracy")
    table = read_table(tmp_path / "out")
    family = {arm: table[arm, "mean", "balanced_accuracy", ""] for arm in ("x1", "x2", "x3")}
    smallest = min(family.values(), key=lambda r: float(r["p"]))
    assert float(smallest["p_holm"]) == pytest.approx(min(1, 3 * float(smallest["p"])), rel=1e-4)
    assert all(float(r["p_holm"]) >= float(r["p"]) for r in family.values())
    assert table["x1", "mean", "accuracy", ""]["p_holm"] == ""
    assert {c for _, _, m, c in table if m == "sensitivity"} == {"NV", "MEL", "SK"}
    assert table["x1", "ensemble", "auroc", "MEL"]["test"] == "DeLong"
    assert table["x1", "ensemble", "auroc", ""]["test"] == ""
    assert "Baseline: plain (the first given). Primary metric: balanced accuracy." in capsys.readouterr().out


def test_same_predictions_show_no_difference(tmp_path, capsys):
    folders, _, _ = draw_runs(tmp_path, {"real": 1.0}, seeds=(1,))
    twin = tmp_path / "twin-seed1"
    twin.mkdir()
    (twin / "predictions.csv").write_bytes((folders[0] / "predictions.csv").read_bytes())
    compare([*folders, twin], tmp_path / "out")
    row = read_table(tmp_path / "out")["twin", "mean", "accuracy", ""]
    assert (row["difference"], row["p"], row["smallest_difference"]) == ("0", "1", "")
    assert "twin: no difference in accuracy from real shown" in capsys.readouterr().out


def test_asked_baseline_and_arms_without_seeds_or_with_other_seeds(tmp_path, capsys):
    folders, _, _ = draw_runs(tmp_path / "a", {"real": 1.0, "synthetic": 0.5}, seeds=(None,))
    compare(folders, tmp_path / "out", baseline="synthetic")
    assert "Baseline: synthetic (as asked)" in capsys.readouterr().out
    assert read_table(tmp_path / "out")["real", "seed -", "accuracy", ""]["test"] == "exact McNemar"
    more, _, _ = draw_runs(tmp_path / "b", {"real": 1.0, "hybrid": 1.5}, seeds=(1, 2, 3))
    compare([f for f in more if f.name not in ("real-seed1", "hybrid-seed3")], tmp_path / "out")
    table = read_table(tmp_path / "out")
    assert [table["hybrid", f"seed {n}", "accuracy", ""]["test"] for n in (1, 2)] == ["", "exact McNemar"]


def test_class_without_images_is_left_undefined_or_refused_as_primary(tmp_path, capsys):
    rng = np.random.default_rng(2)
    labels, groups = np.zeros(30, dtype=int), np.arange(30)
    p = rng.dirichlet([2, 1], size=(2, 30))
    folders = [write_run(tmp_path / arm, labels, groups, p[i], BINARY) for i, arm in enumerate(("real", "hybrid"))]
    compare(folders, tmp_path / "out")
    assert "No image of malignant: what needs one is not defined (–)." in capsys.readouterr().out
    assert read_table(tmp_path / "out")["hybrid", "mean", "auroc", ""]["value"] == ""
    with pytest.raises(InputError, match="auroc is not defined, as no image is of class malignant"):
        compare(folders, tmp_path / "out", primary="auroc")


def test_images_that_are_their_own_groups_and_unequal_steps_are_told(tmp_path, capsys):
    folders, _, _ = draw_runs(tmp_path / "a", {"real": 1.0, "hybrid": 1.4})
    alone = []
    for folder in folders:
        table = (folder / "predictions.csv").read_text().splitlines()
        cells = [line.split(",") for line in table]
        copy = tmp_path / "b" / folder.name
        copy.mkdir(parents=True)
        text = "\n".join(",".join([row[0], row[0] if i else row[1], *row[2:]]) for i, row in enumerate(cells))
        (copy / "predictions.csv").write_text(text + "\n")
        (copy / "fit.yaml").write_text(f"trainer: {{max_steps: {10 if folder.name.startswith('real') else 30}}}\n")
        alone.append(copy)
    compare(folders, tmp_path / "out")
    assert "150 images of 40 patients or lesions" in capsys.readouterr().out
    compare(alone, tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert "on 150 images, split test." in printed
    assert "no patient or lesion ids: images are taken as independent" in printed
    assert "Note: trainer.max_steps is not the same in all arms (real 10, hybrid 30)" in printed


def test_mistakes_are_named_and_nothing_is_written(tmp_path):
    folders, labels, p = draw_runs(tmp_path, {"real": 1.0, "hybrid": 1.4})
    out = tmp_path / "out"
    with pytest.raises(InputError, match="at least two arms; found real"):
        compare(folders[:2], out)
    with pytest.raises(InputError, match="at least two arms; found none"):
        compare([], out)
    with pytest.raises(InputError, match="--baseline: no arm raal; there are real, hybrid"):
        compare(folders, out, baseline="raal")
    one_group = np.zeros(len(labels), dtype=int)
    same = [write_run(tmp_path / "c" / f.name, labels, one_group, p[f.name], BINARY) for f in folders]
    with pytest.raises(InputError, match="all images are of one patient or lesion"):
        compare(same, out)
    (folders[3] / "predictions.csv").unlink()
    with pytest.raises(InputError, match="python -m dermsynth test --config"):
        compare(folders, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fit.yaml", "a run"),
        ("predictions.csv", "a run"),
        ("metadata.csv", "an image set"),
        ("dataset.json", "an image"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_one_of_an_earlier_comparison_taken(tmp_path, name, kind):
    folders, _, _ = draw_runs(tmp_path, {"real": 1.0, "hybrid": 1.4}, seeds=(1,))
    out = tmp_path / "out"
    out.mkdir()
    (out / name).touch()
    with pytest.raises(InputError, match=f"--out {out}: it holds {kind}.*; give another folder"):
        compare(folders, out)
    assert [path.name for path in out.iterdir()] == [name]
    (out / name).unlink()
    for _ in range(2):
        compare(folders, out)


def test_import_is_light():
    code = (
        "import sys, dermsynth.tools.compare; "
        "heavy = {'torch', 'lightning', 'pandas', 'sklearn', 'matplotlib.pyplot'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
