"""Flags of tools as other programs write them."""

import pytest

from dermsynth.cli import tool, tool_arguments


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--dry-run"], True),
        (["--dry_run"], True),
        (["--dry-run", "--jobs", "2"], True),
        (["--dry-run", "true"], True),
        (["--dry_run", "False"], False),
        (["--dry-run=false"], False),
        ([], False),
    ],
)
def test_switches(words, expected):
    found = tool_arguments(tool("study"), ["study", "file.yaml", *words])
    assert found["dry_run"] is expected
    assert str(found["file"]) == "file.yaml"


def test_a_switch_before_what_the_tool_takes():
    assert str(tool_arguments(tool("study"), ["study", "--dry-run", "file.yaml"])["file"]) == "file.yaml"


def test_names_with_a_dash_that_are_nobodys_flag_stay():
    found = tool_arguments(tool("prepare"), ["prepare", "a", "--out", "b", "--labels.basal-cell", "BCC"])
    assert found["labels"] == {"basal-cell": "BCC"}
