"""By hand: checkpoints, bases, networks, configurations and flags that are not what they should be."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from dermsynth.run.checkpoint_io import CONFIGURATION
from tests.robustness import spoil
from tests.robustness.case import Case, Expected
from tests.robustness.spoil import DELETED, Spoil

VIT_FILE = "vit-run/checkpoints/last.ckpt"
TEST = f"test --config vit.yaml --run run --ckpt_path {VIT_FILE}"
EXPORT = f"export {VIT_FILE} --out out"
GO_ON = f"fit --config vit.yaml --run run --ckpt_path {VIT_FILE}"
PREDICT = "predict --config generate.yaml --run run"
MIXED = "--data.synthetic=[generated] --data.allow_foreign=[generated] --data.mix=dermsynth.data.mixing.policies."
DREAMBOOTH = "fit --config dreambooth.yaml --run run"
FIT = "fit --config vit.yaml --run run"
UNET, TEXT = "base/unet/diffusion_pytorch_model.safetensors", "base/text_encoder/model.safetensors"
VAE = "base/vae/diffusion_pytorch_model.safetensors"


def _nested(key: str, inner: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[key].update({inner: value})


def _all(tensors: dict[str, torch.Tensor], value: float) -> None:
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(value)


def _int8(content: dict[str, Any]) -> None:
    content["state_dict"] = {name: tensor.to(torch.int8) for name, tensor in content["state_dict"].items()}


def _half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(tensors.items())[::2])


#: What the tensors of a safetensors file are instead.
WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "no weight": lambda tensors: {"x": torch.zeros(1)},
    "half of its weights": _half,
    "other names": lambda tensors: {f"x{name}": tensor for name, tensor in tensors.items()},
    "NaN weights": lambda tensors: _all(tensors, float("nan")),
    "other shapes": lambda tensors: {name: torch.zeros(3) for name in tensors},
    "weights of int8": lambda tensors: {name: tensor.to(torch.int8) for name, tensor in tensors.items()},
}
#: What a checkpoint's content is instead.
CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda content: [1],
    "a text": lambda content: "text",
    "no state_dict": lambda content: content.pop("state_dict") and None,
    "state_dict a list": lambda content: content.update(state_dict=[1]),
    "state_dict of texts": lambda content: content.update(state_dict=dict.fromkeys(content["state_dict"], "x")),
    "state_dict empty": lambda content: content.update(state_dict={}),
    "a weight of another shape": lambda content: content["state_dict"].update(
        {next(iter(content["state_dict"])): torch.zeros(7, 7)}
    ),
    "NaN weights": lambda content: _all(content["state_dict"], float("nan")),
    "weights of int8": _int8,
    "dermsynth a text": lambda content: content.update(dermsynth="x"),
    "no dermsynth": lambda content: content.pop("dermsynth") and None,
    "no kind": lambda content: content["dermsynth"].pop("kind") and None,
    "kind a list": _nested("dermsynth", "kind", [1]),
    "another kind": _nested("dermsynth", "kind", "dreambooth"),
    "provenance a text": _nested("dermsynth", "data", "x"),
    "provenance without its train split": lambda content: (
        content["dermsynth"]["data"].pop("train_split_sha256") and None
    ),
    "Lightning's version 5": lambda content: content.update({"pytorch-lightning_version": 5}),
    "Lightning's version 0.7.1": lambda content: content.update({"pytorch-lightning_version": "0.7.1"}),
}
#: The same where training is resumed from it.
STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no global_step": lambda content: content.pop("global_step") and None,
    "global_step a text": lambda content: content.update(global_step="x"),
    "no optimizer_states": lambda content: content.pop("optimizer_states") and None,
    "optimizer_states a text": lambda content: content.update(optimizer_states="x"),
    "loops empty": lambda content: content.update(loops={}),
    "callbacks a list": lambda content: content.update(callbacks=[1]),
    "configuration 7": lambda content: content.update({CONFIGURATION: 7}),
    "configuration not YAML": lambda content: content.update({CONFIGURATION: "a: ["}),
    "configuration without keys": lambda content: content.update({CONFIGURATION: "{}"}),
}
#: What the file is instead.
FILES: dict[str, Callable[[str], Spoil]] = {
    "nothing": lambda path: spoil.write(path, b""),
    "text": lambda path: spoil.write(path, "no weights"),
    "half of it": spoil.cut,
    "its middle zero": spoil.zeros,
    "64 bytes of it zero": lambda path: spoil.change(
        path, lambda data: data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :]
    ),
    "a pipe": spoil.fifo,
    "a folder": spoil.folder,
    "absent": spoil.remove,
    "a pickle that runs code": lambda path: spoil.write(path, b"cos\nsystem\n(S'touch RAN'\ntR."),
}
#: File of a base: key, values.
CONFIGS: dict[str, dict[str, list[Any]]] = {
    "unet/config.json": {
        "sample_size": [-8, None, "8", 100_000, 0],
        "norm_num_groups": [0, -1, 7],
        "in_channels": [0, -4, "x", 5],
        "block_out_channels": [[], [0, 0], "x", [8]],
        "down_block_types": [[], ["NoSuchBlock", "NoSuchBlock"]],
        "cross_attention_dim": [0, "x", 17],
    },
    "vae/config.json": {"scaling_factor": ["x", None, 0, "nan"], "latent_channels": [0, 5, "x"], "sample_size": ["x"]},
    "text_encoder/config.json": {
        "num_attention_heads": [0, 3, "x"],
        "hidden_size": [0, -1, "x"],
        "hidden_act": ["no_such_function", 5],
    },
    "scheduler/scheduler_config.json": {
        "beta_start": [float("nan"), "x", -1, 2],
        "beta_end": [float("inf"), float("nan")],
        "num_train_timesteps": [0, -1, "x", 10**9],
        "prediction_type": ["banana", 5],
        "beta_schedule": ["banana"],
    },
    "tokenizer/tokenizer_config.json": {"model_max_length": [0, -1, "x"]},
}
#: The same whose value is not looked at, as the class is not the file's to choose.
CLASSES: dict[str, tuple[str, Any]] = {
    "unet/config.json": ("_class_name", "../../evil"),
    "text_encoder/config.json": ("model_type", "bert"),
    "tokenizer/tokenizer_config.json": ("auto_map", {"AutoTokenizer": ["evil.Tokenizer", None]}),
}
EVIL = "open('RAN', 'w').close()\nclass Tokenizer: pass\n"
#: Keys of a classifier's config.json: values.
NETWORK: dict[str, list[Any]] = {
    "image_size": ["x", 0, -16, 7, None],
    "patch_size": [0, "x"],
    "hidden_size": [0, -1, "x", 17],
    "num_attention_heads": [0, "x"],
    "num_hidden_layers": [0, -1, 100_000, "x"],
    "hidden_act": ["no_such_function", 5],
    "layer_norm_eps": ["x", float("nan")],
    "model_type": ["no_such_model", 5, "gpt2"],
}
NETWORK_FILE = "vit/model.safetensors"
#: YAML texts that are given as a second --config.
YAMLS: dict[str, str | bytes] = {
    "nothing": "",
    "a list": "[1]",
    "a number": "5",
    "a number of 5,000 digits": "seed_everything: " + "9" * 5_000,
    "a text": "text",
    "not YAML": "a: [",
    "tabs": "a:\n\tb: 1",
    "binary": bytes(range(128, 256)),
    "NUL": "a: \0",
    "an alias of itself": "a: &a [*a]",
    "5,000 nested lists": "a: " + "[" * 5_000 + "]" * 5_000,
    "an alias bomb": "a: &a [x, x]\n"
    + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    ),
    "Python's tag": "a: !!python/object/apply:os.system ['touch RAN']",
    "a key twice": "seed_everything: 0\nseed_everything: 7\n",
    "a block twice": "trainer: {max_steps: 6}\ntrainer: {log_every_n_steps: 3}\n",
    "an inner key twice": "data: {init_args: {batch_size: 2, batch_size: 4}}",
    "config: of another file": "config: /etc/passwd",
    "no such key": "banana: 1",
    "no such inner key": "trainer: {max_step: 1}",
    "init_args null": "model: {init_args: null}",
    "model null": "model: null",
    "a model that is a data module": "model: {class_path: dermsynth.data.loading.modules.ClassificationData}",
    "a class that is not there": "model: {class_path: no.such.Class}",
    "a callback that is none": "trainer: {callbacks: [{class_path: os.system}]}",
    "seed_everything true": "seed_everything: true",
    "seed_everything false": "seed_everything: false",
    "EarlyStopping of no metric": "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, "
    "init_args: {monitor: val_loss}}]}",
    "ModelCheckpoint of no metric": "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
    "init_args: {monitor: val_loss}}]}",
    "two EMAs": "trainer: {callbacks: [{class_path: callbacks.ema.EMA}, {class_path: callbacks.ema.EMA}]}",
    "WandbLogger without wandb": "trainer: {logger: {class_path: lightning.pytorch.loggers.WandbLogger}}",
}
FLAGS = {
    FIT: [
        "--seed_everything=-1", "--seed_everything=4294967296", "--seed_everything=x", "--seed_everything=.nan",
        "--run=", "--run=/dev/null/x", f"--run={'x' * 300}", "--run=$HOME/x", "--run=file.txt", "--run=fifo",
        "--config=fifo", "--config=absent.yaml", "--config=empty", "--config=", "--ckpt_path=absent",
        "--ckpt_path=fifo",
        "--model.class_weights=[.nan,1,1]", "--model.class_weights=[.inf,1,1]", "--model.class_weights=[1,1]",
        "--model.class_weights=[0,1,1]", "--model.optimizer=torch.optim.NoSuch", "--model.optimizer=os.system",
        "--model.model=empty", "--model.model=base", "--model.model=file.txt", "--model.model=absent/folder",
        "--model.model.hidden_size=-4", "--model.model.hidden_size=17", "--model.model.patch_size=0",
        "--model.model.hidden_dropout_prob=.nan", "--model.model.initializer_range=.nan",
        "--model.model.layer_norm_eps=.nan", "--model.model.num_hidden_layers=0", "--model.model.num_hidden_layers=-1",
        "--model.model.num_attention_heads=0", "--model.model.hidden_act=banana", "--model.model.model_type=banana",
        "--data.classes=[]", "--data.classes=[NV]", "--data.classes=[NV,NV]", "--data.classes=[NV,BANANA]",
        "--data.synthetic=[absent]", "--data.synthetic=[real]", "--data.synthetic=[generated]", "--data.mix=NoSuch",
        "--data.allow_foreign=[absent]", "--data.pixel_cache=file.txt", "--data.fold=7", "--data.num_workers=100000",
        "--data.size=99999999", "--data.size=-16", "--trainer.val_check_interval=0", "--trainer.limit_train_batches=0",
        "--trainer.devices=-1", "--trainer.gradient_clip_val=-1", "--model.optimizer.lr=1e300",
        f"--data.num_workers={'9' * 5000}",
        "--trainer.accelerator=quantum", "--trainer.strategy=bogus", "--trainer.devices=0", "--trainer.devices=x",
        "--trainer.precision=7", "--trainer.max_step=1", "--banana=1", "--model.banana=1", "--trainer.callbacks=banana",
    ],
    DREAMBOOTH: [
        "--model.base=absent/folder", "--model.base=empty", "--model.base=file.txt", "--model.base=vit-run",
        "--model.lora={rank: 4, alpha: .nan}", "--model.lora={rank: 100000000}", "--model.lora={targets: [banana]}",
        "--model.objective={prior_loss_weight: {NV: .nan}}", "--model.objective={prior_loss_weight: {BANANA: 1}}",
        "--data.token=", "--data.instance_prompt={banana}", "--data.instance_prompt={lesion", "--data.metadata=[shoe]",
        "--data.instance_prompt={BANANA: x}", f"--data.token={'very ' * 300}",
        f"--data.instance_prompt={'x ' * 2500}{{lesion}}",
    ],
    PREDICT: [
        "--data.count={NV: 1}", "--data.count={NV: -1, MEL: 1, SK: 1}", "--data.count={NV: .nan, MEL: 1, SK: 1}",
        "--data.count=1000000000000", "--data.shards=1000000", "--model.sampling.steps=1000000", "--run=",
        "--model.sampling.steps=1001", "--ckpt_path=fifo", f"--ckpt_path={VIT_FILE}", "--data.prompt={banana}",
    ],
    f"{FIT} {MIXED}Ratio": ["--data.mix.ratio=0.99999999", "--data.mix.ratio=2"],
    f"{FIT} {MIXED}CountPerClass": ["--data.mix.count=1000000000000", "--data.mix.count=[1,2]"],
    f"{FIT} {MIXED}RatioPerClass": [
        "--data.mix.ratios=[.nan,0,0]", "--data.mix.ratios=[2,0,0]", "--data.mix.ratios=[]",
    ],
    f"{FIT} {MIXED}OversampledReal": ["--data.mix.like=x", "--data.mix.like=dermsynth.data.mixing.policies.NoSuch"],
    f"{FIT} --trainer.callbacks+=callbacks.ema.EMA": [
        "--trainer.callbacks.decay=2", "--trainer.callbacks.decay=1", "--trainer.callbacks.decay=-1",
    ],
    "validate --config vit.yaml --run run": ["--ckpt_path=absent", "--ckpt_path=fifo", "--data.size=0"],
    "test --config vit.yaml --run run": ["", "--ckpt_path=absent", "--ckpt_path=vit-run", "--ckpt_path=real"],
    "export": [
        "vit-run --out out", "absent --out out", f"{VIT_FILE} --out real", f"{VIT_FILE} --out=", f"{VIT_FILE}",
        f"{VIT_FILE} --out out --format lora", "fifo --out out", "file.txt --out out", f"{VIT_FILE} --out file.txt/x",
    ],
    "init": ["configs --out base", "absent --out out", "empty --out out", "fifo --out out", "configs",
             "file.txt --out out"],
    "phantoms": ["", "--out real", "--out file.txt", "--out=", "--out fifo"],
    "prepare": ["", "folders", "absent --out out", "folders --out folders/x", "folders --out real", "empty --out out",
                "file.txt --out out", "fifo --out out", "folders --out=", "folders --out file.txt", "real --out out"],
    "adopt": ["folders --out out", "absent --out out --license x --attribution y", "--license x"],
    "banana": [""],
    "fit": ["", "--config", "--config=vit.yaml", "vit.yaml"],
}  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them."""
    for command in (TEST, EXPORT, GO_ON, PREDICT, DREAMBOOTH, "init configs --out out"):
        yield _case("good models", command, None, "accepted")
    for command, contents in ((TEST, CHECKPOINTS), (EXPORT, CHECKPOINTS), (GO_ON, STATES)):
        for what, how in contents.items():
            # What Lightning wrote it, `export` does not ask.
            expected: Expected = "either" if command == EXPORT and what.startswith("Lightning") else "refused"
            yield _case(f"a checkpoint, {what}", command, spoil.checkpoint(VIT_FILE, how), expected)
    for command in (TEST, EXPORT, GO_ON):
        for what, of in FILES.items():
            yield _case(f"a checkpoint, {what}", command, of(VIT_FILE))
    for what, text in YAMLS.items():
        yield _case(f"a run's fit.yaml, {what}", EXPORT, spoil.write("vit-run/fit.yaml", text), _of_run(what))
        yield _case(f"YAML, {what}", f"{FIT} --config more.yaml", spoil.write("more.yaml", text), _metric(what))
    yield from _bases()
    yield from _networks()
    for command, flags in FLAGS.items():
        for flag in flags:
            words = (flag,) if flag.startswith("--") and "=" in flag else tuple(flag.split())
            shown = f"{command} {flag[:60]}"
            yield Case(f"flags: {shown}", (*command.split(), *words))


def _networks() -> Iterator[Case]:
    """A folder of a classifier as `export` writes it."""
    command = f"{FIT} --model.model=vit"
    yield _case("good networks", command, None, "accepted")
    for key, values in NETWORK.items():
        for value in values:
            yield _case(f"vit/config.json, {key} {value}", command, spoil.item("vit/config.json", key, value))
    for what, text in {"a list": "[]", "a number": "5", "nothing": "", "nested": "[" * 50_000}.items():
        yield _case(f"vit/config.json, {what}", command, spoil.write("vit/config.json", text))
    yield from _weights(NETWORK_FILE, command)
    odd = spoil.item("vit/config.json", "auto_map", {"AutoConfig": "evil.Tokenizer"})
    yield _case("vit/config.json, code", command, spoil.both(odd, spoil.write("vit/evil.py", EVIL)), "either")


def _weights(path: str, command: str) -> Iterator[Case]:
    for what, of in FILES.items():
        # safetensors has no check sum, and zeros are numbers.
        yield _case(f"{path}, {what}", command, of(path), "either" if "zero" in what else "refused")
    for what, how in WEIGHTS.items():
        yield _case(f"{path}, {what}", command, spoil.weights(path, how))


def _bases() -> Iterator[Case]:
    for name, keys in CONFIGS.items():
        for key, values in keys.items():
            for value in [*values, DELETED] if name.startswith(("unet", "vae")) and key != "sample_size" else values:
                said = "absent" if value is DELETED else value
                yield _case(
                    f"base/{name}, {key} {said}", PREDICT, spoil.item(f"base/{name}", key, value), _default(value)
                )
    for name in (*CONFIGS, "model_index.json", "tokenizer/tokenizer.json"):
        for what, text in {"a list": "[]", "a number": "5", "nothing": "", "nested": "[" * 50_000}.items():
            yield _case(f"base/{name}, {what}", PREDICT, spoil.write(f"base/{name}", text))
    for name, (key, value) in CLASSES.items():
        how = spoil.both(spoil.item(f"base/{name}", key, value), spoil.write("base/tokenizer/evil.py", EVIL))
        yield _case(f"base/{name}, {key} {value}", PREDICT, how, "accepted")
    yield _case("base/tokenizer/tokenizer.json, {}", PREDICT, spoil.write("base/tokenizer/tokenizer.json", "{}"))
    for path in (UNET, VAE, TEXT):
        yield from _weights(path, PREDICT)


def _case(what: str, command: str, how: Spoil | None, expected: Expected = "refused") -> Case:
    return Case(f"{what}: {command}", tuple(command.split()), how, expected)


def _default(value: Any) -> Expected:
    """A key that is absent has the library's default, with which the weights may still fit."""
    return "either" if value is DELETED or value is None else "refused"


def _of_run(what: str) -> Expected:
    """What `export` does not need of a run's configuration may be of any kind."""
    needless = ("seed_everything", "EarlyStopping", "ModelCheckpoint", "two EMAs", "WandbLogger", "no such inner key")
    return "either" if what.startswith(needless) else "refused"


def _metric(what: str) -> Expected:
    """One step validates only where the recipe says so, and a metric is asked for after that."""
    return "either" if "of no metric" in what else "refused"
