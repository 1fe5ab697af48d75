"""The benchmark of the search for copies, as small as it runs."""

import json
import sys

import pytest

from benchmarks import audit_copies


def test_it_reports_what_it_found_and_took(monkeypatch, capsys):
    words = ["--generated", "300", "--train", "80", "--searched", "200", "--plain", "4", "--width", "8"]
    monkeypatch.setattr(sys, "argv", ["audit_copies", *words])
    audit_copies.main()
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert numbers["planted_found"] == 1
    assert numbers["ratio"] > 1
    assert 0 < numbers["memory_gb"] < 4


def test_copies_are_of_the_pictures_that_it_says():
    train, generated, owners = audit_copies.pictures(5, 201)
    assert (owners >= 0).nonzero()[0].tolist() == [0, 100, 200]
    found = audit_copies.all_pairs(generated[[0, 100]], train)
    assert found == pytest.approx(owners[[0, 100]])
