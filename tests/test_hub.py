import pytest

from dermsynth.hub import explain_missing, is_folder_name, local_folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("google/vit-base-patch16-224-in21k", False),
        ("gpt2", False),
        ("runs", True),
        ("runs/bsae", True),
        ("runs/base", True),
        ("a/b/c", True),
        ("./x", True),
        ("../x", True),
        ("~/x", True),
        ("~nobody-of-this-name/x", True),
        ("/x", True),
    ],
)
def test_folders_are_told_from_hub_ids(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/base").mkdir(parents=True)
    assert is_folder_name(name) == expected


def test_a_hub_id_becomes_a_folder_name_beside_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_folder_name("google/vit")
    (tmp_path / "google").mkdir()
    assert is_folder_name("google/vit")


def test_a_folder_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert local_folder("~/model") == tmp_path / "model"
    assert local_folder("~/other") is None
    assert local_folder("~nobody-of-this-name/model") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./x", "no folder './x'."),
        ("nowhere", "no folder 'nowhere'."),
        ("a/b/c", "no folder 'a/b/c'."),
        (
            "runs/bsae",
            "no folder 'runs/bsae': there is a folder runs here, but no bsae in it. "
            "A hub id of that name can be given where no folder is called runs.",
        ),
        (
            "sd15/sd15",
            "no folder 'sd15/sd15': there is a folder sd15 here, but no sd15 in it. "
            "The model lies in sd15 itself: give --model.base sd15.",
        ),
    ],
)
def test_a_missing_folder_is_explained(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "sd15").mkdir()
    (tmp_path / "sd15/model_index.json").touch()
    assert explain_missing(name, "--model.base", "model_index.json") == said
