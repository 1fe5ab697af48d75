import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig

from dermsynth.classification import vit
from dermsynth.errors import InputError

TINY = {
    "model_type": "vit",
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
CLASSES = ["NV", "MEL", "SK"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    vit.build(TINY, CLASSES).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_mapping_builds_the_described_network():
    model = vit.build(TINY, CLASSES)
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.patch_size) == (32, 2, 8)
    assert model(pixel_values=torch.zeros(2, 3, 32, 32)).logits.shape == (2, 3)
    assert model.config.id2label == {0: "NV", 1: "MEL", 2: "SK"}


def test_image_size_overrules_the_mapping():
    assert vit.build(TINY, CLASSES, image_size=48).vit.embeddings.position_embeddings.shape == (1, 37, 32)


def test_folder_with_the_same_classes_gives_the_same_network(folder):
    torch.manual_seed(1)
    again = vit.build(str(folder), CLASSES)
    torch.manual_seed(0)
    for name, tensor in vit.build(TINY, CLASSES).state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("classes", [["MEL", "NV", "SK"], ["benign", "malignant"]])
def test_folder_with_other_classes_keeps_the_backbone_and_gets_a_new_head(folder, classes):
    original, again = vit.build(str(folder), CLASSES), vit.build(str(folder), classes)
    assert again.classifier.weight.shape == (len(classes), 32)
    assert not torch.equal(original.classifier.weight[: len(classes)], again.classifier.weight)
    for name, tensor in original.vit.state_dict().items():
        assert torch.equal(tensor, again.vit.state_dict()[name]), name


def test_another_size_interpolates_positions_as_transformers_does_at_run_time(folder):
    original, larger = vit.build(str(folder), CLASSES), vit.build(str(folder), CLASSES, image_size=48)
    images = torch.randn(2, 3, 48, 48)
    expected = original(pixel_values=images, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(larger(pixel_values=images).logits, expected)
    assert larger.config.image_size == 48


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_positions_on_their_own_grid_do_not_change(tokens):
    positions = torch.randn(1, tokens + 16, 4)
    torch.testing.assert_close(vit.resize_positions(positions, 16), positions)


def test_parameter_groups_split_everything_once():
    model = vit.build(TINY, CLASSES)
    decay, no_decay = vit.parameter_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for p in decay["params"]}
    exempt = {names[id(p)] for p in no_decay["params"]}
    assert decayed | exempt == set(names.values())
    assert not decayed & exempt
    assert "weight_decay" not in decay
    assert no_decay["weight_decay"] == 0
    assert {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"} <= exempt
    matrices = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert decayed == matrices


def test_parameter_groups_leave_frozen_parameters_out():
    model = vit.build(TINY, CLASSES)
    model.vit.requires_grad_(False)
    assert [len(group["params"]) for group in vit.parameter_groups(model)] == [1, 1]


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "runs/a/b"])
def test_missing_folder_is_refused_and_says_what_is_supported(name):
    with pytest.raises(InputError, match=r"no folder .*Supported: a folder with config.json.*hub id"):
        vit.build(name, CLASSES)


def test_misspelt_folder_beside_others_is_not_looked_for_on_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/base").mkdir(parents=True)

    def refuse(*args, **kwargs):
        raise AssertionError("asked for a hub id")

    monkeypatch.setattr(vit.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(InputError, match=r"no folder 'runs/bsae'"):
        vit.build("runs/bsae", CLASSES)


def test_hub_id_out_of_reach_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'google/no-such-vit' could not be loaded: .*Supported"):
        vit.build("google/no-such-vit", CLASSES)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="could not be loaded"):
        vit.build(str(tmp_path), CLASSES)


def test_folder_with_pickled_weights_only_is_refused(folder):
    torch.save(vit.build(TINY, CLASSES).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="could not be loaded"):
        vit.build(str(folder), CLASSES)


@pytest.mark.parametrize("keep", [0, 100])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_folder_with_a_file_that_was_cut_is_refused(folder, name, keep):
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(InputError, match=r"could not be loaded: \w.*Supported"):
        vit.build(str(folder), CLASSES)


def test_folder_may_lie_in_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert vit.build("~/saved", CLASSES).config.hidden_size == 32


def test_folder_with_half_of_the_weights_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    half = {name: tensor for name, tensor in state.items() if ".1." not in name}
    save_file(half, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks 16 weights, such as vit"):
        vit.build(str(folder), CLASSES)


def spoil(folder, change):
    """Rewrite the weights of a folder."""
    state = {name: change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, tensor: torch.full_like(tensor, torch.nan), r"(\d+) of \1 weights are NaN or infinite"),
        (lambda name, tensor: tensor.index_fill(0, torch.tensor([0]), torch.inf), "weights are NaN or infinite"),
        (lambda name, tensor: tensor.to(torch.int8), r"in model\.safetensors is I8; expected float32"),
        (lambda name, tensor: tensor.to(torch.float8_e4m3fn), r"is F8_E4M3; expected float32"),
        (lambda name, tensor: tensor[:1], "could not be loaded: "),
    ],
)
def test_folder_with_weights_that_are_no_weights_is_refused(folder, change, message):
    spoil(folder, change)
    with pytest.raises(InputError, match=message):
        vit.build(str(folder), CLASSES)


def test_weights_that_are_not_used_are_said(folder):
    save_file(
        {**load_file(folder / "model.safetensors"), "text.weight": torch.ones(2)},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.warns(UserWarning, match=r"saved': 1 weights in its files are not used, such as text\.weight"):
        vit.build(str(folder), CLASSES)


# As published: networks of images, and of images and texts.
PART = {key: TINY[key] for key in TINY if key != "model_type"}
TEXT = {key: PART[key] for key in PART if key not in ("image_size", "patch_size")}
BOTH = {"vision_config": PART, "text_config": {**TEXT, "vocab_size": 20}}
PUBLISHED = {
    "vit": (TINY, transformers.ViTModel),
    "deit": ({**TINY, "model_type": "deit"}, transformers.DeiTForImageClassification),
    "dinov2": ({**PART, "model_type": "dinov2", "mlp_ratio": 1}, transformers.Dinov2Model),
    "siglip": ({**BOTH, "model_type": "siglip"}, transformers.SiglipModel),
    "siglip with a head": ({**BOTH, "model_type": "siglip"}, transformers.SiglipForImageClassification),
    "clip": ({**BOTH, "model_type": "clip"}, transformers.CLIPModel),
    "levit": (
        {"model_type": "levit", "image_size": 32, "hidden_sizes": [8, 12, 16], "num_attention_heads": [1, 1, 1]}
        | {"depths": [1, 1, 1], "key_dim": [4, 4, 4], "down_ops": [["Subsample", 4, 2, 4, 2, 2]] * 2 + [[""]]},
        transformers.LevitModel,
    ),
}


def is_published(tensor):
    return bool((tensor >= 0.1).all() and (tensor <= 0.2).all())


@pytest.fixture(params=PUBLISHED)
def published(request, tmp_path):
    """A folder of a network whose every weight is random, so that none is as a new one would be."""
    fields, kind = PUBLISHED[request.param]
    torch.manual_seed(0)
    network = kind(AutoConfig.for_model(**fields))
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.2)
    network.save_pretrained(tmp_path / "published", max_shard_size="20KB")
    return tmp_path / "published"


@pytest.mark.filterwarnings("ignore:.*are not used")
def test_every_weight_but_the_heads_is_taken_over(published):
    state = vit.build(str(published), CLASSES).state_dict()
    new = {name for name, tensor in state.items() if tensor.is_floating_point() and not is_published(tensor)}
    assert {name.split(".")[0] for name in new} == {"classifier"}
    assert len(new) < len(state) / 4


@pytest.mark.filterwarnings("ignore:.*are not used")
def test_a_backbone_that_is_not_whole_is_refused(published):
    for file in published.glob("*.safetensors"):
        kept = {
            key: tensor for key, tensor in load_file(file).items() if "text" in key or not key.endswith("norm.bias")
        }
        save_file(kept or {"text": torch.ones(1)}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks \d+ weights, such as .*norm\.bias"):
        vit.build(str(published), CLASSES)


@pytest.mark.filterwarnings("ignore:.*are not used")
@pytest.mark.parametrize("published", ["siglip", "clip"], indirect=True)
def test_a_network_of_images_and_texts_is_resized_where_it_keeps_its_size(published):
    larger = vit.build(str(published), CLASSES, image_size=48)
    assert vit.image_size(larger.config) == 48
    assert larger(pixel_values=torch.zeros(1, 3, 48, 48)).logits.shape == (1, 3)


def test_a_network_that_cannot_be_resized_is_refused(tmp_path):
    vit.build({**TINY, "model_type": "beit", "use_relative_position_bias": True}, CLASSES).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model\.image_size: .*relative_position_bias_table is .* cannot be resized"):
        vit.build(str(tmp_path), CLASSES, image_size=48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden_size": 64}, "hiden_size is no field of ViTConfig; it has .*hidden_size"),
        ({"model_type": "vitt"}, "'vitt' is not known"),
        ({"model_type": None}, "no model_type"),
        ({"model_type": "siglip2"}, "siglip2 takes an image as patches of its own shape .*, which is not supported"),
        ({"hidden_size": "wide"}, "makes no ViTConfig"),
        ({"model_type": "gpt2"}, "gpt2 cannot be built"),
        ({"patch_size": 0}, "model.patch_size: 0 must be from 1"),
        ({"image_size": -3}, "model.image_size: -3 must be from 1"),
        ({"hidden_act": "bogus"}, "vit cannot be built: 'bogus'"),
        ({"num_channels": 1}, "vit cannot be built: .*channel"),
        ({"num_attention_heads": 0}, r"model\.num_attention_heads: 0 must be from 1"),
        ({"num_hidden_layers": -1}, r"model\.num_hidden_layers: -1 must be from 1"),
        ({"num_hidden_layers": 60_000}, r"model\.num_hidden_layers: 60000 must be at most 1000"),
        ({"hidden_size": 33}, r"model\.hidden_size: 33 cannot be shared by num_attention_heads 2"),
        ({"layer_norm_eps": float("nan")}, r"model\.layer_norm_eps: nan is no finite number"),
        ({"layer_norm_eps": 0.0}, r"model\.layer_norm_eps: 0\.0 must be above 0"),
        ({"layer_norm_eps": -1.0}, r"model\.layer_norm_eps: -1\.0 must be above 0"),
        ({"attention_probs_dropout_prob": 1.5}, r"model\.attention_probs_dropout_prob: 1\.5 is no probability"),
        ({"initializer_range": 1e300}, "weights are NaN or infinite"),
    ],
)
def test_wrong_mapping_is_refused(change, message):
    fields = change if change.get("model_type") in ("gpt2", "siglip2") else {**TINY, **change}
    with pytest.raises(InputError, match=message):
        vit.build(fields, CLASSES)
