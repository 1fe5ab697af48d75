from dataclasses import replace

import pytest

from dermsynth.report import figures as forest


def test_plot_shows_each_metric_with_its_interval_and_fills_only_clear_differences(comparison):
    figure = forest.plot(comparison(difference_low=0.001))
    upper, lower = figure.axes[:5], figure.axes[5:]
    assert [ax.get_title().split("\n")[-1] for ax in upper] == [
        "accuracy %", "AUROC", "accuracy %", "malignant %", "malignant %"
    ]  # fmt: skip
    assert [label.get_text() for label in upper[0].get_yticklabels()] == ["real", "hybrid"]
    assert [label.get_text() for label in lower[0].get_yticklabels()] == ["hybrid"]
    assert [text.get_text() for text in upper[0].texts] == ["81.73", "84.06"]
    interval = next(line for line in upper[0].lines if line.get_color() == forest.ARM_COLOUR)
    assert list(interval.get_xdata()) == pytest.approx([78, 87])

    def diamond(axes):
        return next(line for line in axes.lines if line.get_marker() == "D").get_markerfacecolor()

    assert diamond(lower[0]) == forest.ARM_COLOUR
    assert diamond(forest.plot(comparison()).axes[5]) == "white"


def test_plot_leaves_out_what_is_not_defined(comparison):
    c = comparison()
    undefined = tuple(replace(r, value=float("nan")) if r.metric == "auroc" else r for r in c.results)
    assert not forest.plot(replace(c, results=undefined)).axes[1].texts


def test_plot_names_patients_only_where_they_are_known(comparison):
    c = comparison()
    assert "600 images of 400 patients or lesions." in forest.plot(c).get_supxlabel()
    alone = replace(c, n_groups=600, n_without_id=600)
    assert "patients" not in forest.plot(alone).get_supxlabel()


def test_plot_shows_what_the_commonest_class_alone_would_give(comparison):
    c = replace(comparison(), class_counts={"benign": 450, "malignant": 150})
    figure = forest.plot(c)
    marks = [line for line in figure.axes[0].lines if line.get_color() == forest.COMMONEST_COLOUR]
    assert [list(line.get_xdata()) for line in marks] == [[75, 75]]
    assert "answering benign, the commonest class, for every image" in figure.get_supxlabel()
