import json

import lightning as L
import pytest
import torch

from callbacks.predictions import Collector, PredictionsWriter
from dermsynth.classification.metrics import ClassifierMetrics
from dermsynth.errors import InputError
from tests.processes import exit_codes, start


class Remembered(L.LightningModule):
    """Gives back outcomes that lie in the batch."""

    classes = ("benign", "malignant")

    def test_step(self, batch, batch_idx):
        return {
            "probabilities": torch.tensor([row[3] for row in batch]),
            "label": torch.tensor([row[2] for row in batch]),
            "image_id": [row[0] for row in batch],
            "group": [row[1] for row in batch],
        }


ROWS = [
    ("ISIC_3", "g2", 1, (0.25, 0.75)),
    ("ISIC_1", "g1", 0, (0.9999999, 1.2345678e-7)),
    ("ISIC_2", "g,1", 0, (0.4, 0.6)),
]


def run_test(folder, rows=ROWS, **kwargs):
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        callbacks=[PredictionsWriter()],
        **kwargs,
    )
    loader = torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=list)
    trainer.test(Remembered(), loader, verbose=False)
    return folder / "predictions.csv"


def test_file_is_exact_and_sorted_and_stands_alone(tmp_path):
    path = run_test(tmp_path / "run")
    assert path.read_text() == (
        "image_id,group,split,label,p_benign,p_malignant\n"
        "ISIC_1,g1,test,benign,0.999999881,1.23456786e-07\n"
        'ISIC_2,"g,1",test,benign,0.400000006,0.600000024\n'
        "ISIC_3,g2,test,malignant,0.25,0.75\n"
    )
    assert [p.name for p in path.parent.iterdir()] == ["predictions.csv"]


def test_image_that_a_padded_sampler_gave_twice_is_written_once(tmp_path):
    assert run_test(tmp_path, [*ROWS, ROWS[0]]).read_text().count("ISIC_3") == 1


@pytest.mark.parametrize("twin", [("ISIC_3", "g2", 0, (0.25, 0.75)), ("ISIC_3", "g2", 1, (0.75, 0.25))])
def test_one_id_with_two_outcomes_is_refused_and_nothing_written(tmp_path, twin):
    with pytest.raises(InputError, match=r"'ISIC_3' came twice"):
        run_test(tmp_path, [*ROWS, twin])
    assert not (tmp_path / "predictions.csv").exists()


def test_debugging_run_writes_nothing(tmp_path):
    assert not run_test(tmp_path, fast_dev_run=True).exists()


@pytest.mark.parametrize("limit", [1, 0.5])
def test_a_limited_test_leaves_the_whole_file_and_says_so(tmp_path, capsys, limit):
    before = run_test(tmp_path).read_text()
    assert run_test(tmp_path, limit_test_batches=limit).read_text() == before
    assert capsys.readouterr().out.count(f"{tmp_path / 'predictions.csv'} is not written") == 1


@pytest.mark.parametrize("limit", [2, 5, 1.0])
def test_a_limit_that_leaves_nothing_out_is_none(tmp_path, limit):
    assert len(run_test(tmp_path, limit_test_batches=limit).read_text().splitlines()) == 4


def test_a_second_test_replaces_the_first(tmp_path):
    run_test(tmp_path)
    assert len(run_test(tmp_path, ROWS[:1]).read_text().splitlines()) == 2


def gather(rank, folder):
    """Of five images; the second rank is shown one twice. Writes down what it has after that."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    images = [0, 2, 4] if rank == 0 else [1, 3]
    shown = images if rank == 0 else [*images, 1]
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    y = torch.tensor([0, 1, 0, 1, 0])
    collector, metrics = Collector(), ClassifierMetrics(["benign", "malignant"])
    ids = [f"i{number}" for number in shown]
    collector.add({"image_id": ids, "group": ["g"] * len(shown), "label": y[shown], "probabilities": p[shown]})
    metrics.update(p[images], y[images])
    measured = {name: value.item() for name, value in metrics.compute().items()}
    (folder / f"{rank}.json").write_text(json.dumps([[row.image_id for row in collector.gather()], measured]))
    torch.distributed.destroy_process_group()


def test_two_ranks_gather_every_image_once_and_measure_all(tmp_path):
    assert exit_codes(start(gather, 2, tmp_path)) == [0, 0]
    for rank in (0, 1):
        ids, measured = json.loads((tmp_path / f"{rank}.json").read_text())
        assert ids == ["i0", "i1", "i2", "i3", "i4"]
        # Four of the six pairs of a malignant and a benign image are in order; a tie says benign.
        expected = {
            "accuracy": 0.8,
            "balanced_accuracy": 0.75,
            "sensitivity/benign": 1.0,
            "sensitivity/malignant": 0.5,
            "specificity/benign": 0.5,
            "specificity/malignant": 1.0,
            "auroc": 4 / 6,
        }
        assert {name: measured[name] for name in expected} == pytest.approx(expected)


def test_collector_is_empty_after_it_was_gathered():
    collector = Collector()
    collector.add(Remembered().test_step(ROWS, 0))
    assert len(collector.gather()) == 3
    assert collector.gather() == []


def test_an_outcome_of_nan_is_not_taken_for_two():
    collector = Collector()
    collector.add(Remembered().test_step([("ISIC_1", "g", 0, (float("nan"),) * 2)] * 2, 0))
    assert len(collector.gather()) == 1
