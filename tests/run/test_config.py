"""The leaves of a configuration."""

import pytest

from dermsynth.run.config import leaves


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": {"b": 1, "c": {"d": None}}}, {"a.b": 1, "a.c.d": None}),
        ({"a": [1, 2], "b": []}, {"a": [1, 2], "b": []}),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a.0.b": 1, "a.1.b": 2}),
        ({"a": {}, 3: 4}, {"a": {}, "3": 4}),
        (None, {"": None}),
    ],
)
def test_leaves_by_dotted_key(value, expected):
    assert leaves(value) == expected


def test_what_is_ignored_is_left_out_wherever_it_stands():
    value = {"run": "a", "data": {"init_args": {"cache": "b", "size": 1}}, "list": [{"cache": 1, "x": 2}]}
    assert leaves(value, ["run", "cache"]) == {"data.init_args.size": 1, "list.0.x": 2}
