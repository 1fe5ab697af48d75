"""The good inputs that cases spoil: small sets, a base, finished runs and the configurations that made them."""

import csv
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import yaml

from tests.builders import CLASSES, make_configs, make_pipeline, make_set

CALLBACKS = "lightning.pytorch.callbacks.ModelCheckpoint"
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}
SCHEDULE = {"class_path": "dermsynth.run.schedules.WarmupCosine", "init_args": {"warmup_steps": 0, "total_steps": 2}}
TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "max_steps": 1,
    "max_epochs": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
    "callbacks": [{"class_path": CALLBACKS, "init_args": {"filename": "best"}}],
}
SET = {"real": "real", "classes": CLASSES, "size": 16, "batch_size": 4}
VIT = {
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SAMPLING = {"steps": 1, "guidance_scale": 2.0}
PREDICTIONS = {"class_path": "callbacks.predictions.PredictionsWriter"}
DIFFUSION = "dermsynth.diffusion"

#: Name of a configuration file: what is in it.
CONFIGURATIONS: dict[str, dict[str, object]] = {
    "vit.yaml": {
        "trainer": {**TRAINER, "callbacks": [*TRAINER["callbacks"], PREDICTIONS]},
        "model": {
            "class_path": "dermsynth.classification.classifier.Classifier",
            "init_args": {"model": VIT, "optimizer": ADAMW, "lr_scheduler": SCHEDULE},
        },
        "data": {"class_path": "dermsynth.data.loading.modules.ClassificationData", "init_args": SET},
    },
    "dreambooth.yaml": {
        "trainer": TRAINER,
        "model": {
            "class_path": f"{DIFFUSION}.dreambooth.DreamBooth",
            "init_args": {"base": "base", "sampling": SAMPLING, "optimizer": ADAMW, "lr_scheduler": SCHEDULE},
        },
        "data": {"class_path": "dermsynth.data.loading.modules.DreamBoothData", "init_args": SET},
    },
    "autoencoder.yaml": {
        "trainer": TRAINER,
        "model": {
            "class_path": f"{DIFFUSION}.autoencoder.Autoencoder",
            "init_args": {"base": "base", "optimizer": ADAMW, "lr_scheduler": SCHEDULE},
        },
        "data": {"class_path": "dermsynth.data.loading.modules.ClassificationData", "init_args": SET},
    },
    "generate.yaml": {
        "trainer": {**TRAINER, "callbacks": [{"class_path": "callbacks.image_set_writer.ImageSetWriter"}]},
        "model": {
            "class_path": f"{DIFFUSION}.dreambooth.DreamBooth",
            "init_args": {"base": "base", "sampling": SAMPLING},
        },
        "data": {
            "class_path": "dermsynth.data.loading.generation.GenerationData",
            "init_args": {"classes": CLASSES, "count": 1, "batch_size": 3, "prompt": "a dermoscopic image of {lesion}"},
        },
    },
}


def build(folder: Path) -> None:
    """Fill an empty folder with all that the cases start from. Trains, so call it in a process of its own."""
    os.chdir(folder)
    for name, content in CONFIGURATIONS.items():
        Path(name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    make_set(Path("real"))
    make_set(Path("generated"), dict.fromkeys(CLASSES, 2), "train", "synthetic", train_split_sha256="unknown")
    make_configs(Path("configs"))
    make_pipeline(Path("base"))
    _sources()
    _predictions()
    for words in (
        "fit --config vit.yaml --run vit-run",
        "fit --config dreambooth.yaml --run dreambooth-run",
        "export vit-run/checkpoints/last.ckpt --out vit",
        "predict --config generate.yaml --run ../aside/made",
        "prepare folders --out ../aside/set --size 16 --processes 1",
        "compare real-seed1 hybrid-seed1 --out ../aside/compared",
    ):
        _command(words.split())
    Path("file.txt").write_text("text\n", encoding="utf-8")
    Path("empty").mkdir()
    # What the commands have imported, so that no case has to.
    folder.with_suffix(".modules").write_text("\n".join(sys.modules), encoding="utf-8")


def _command(words: list[str]) -> None:
    from dermsynth.cli import main

    sys.argv = ["dermsynth", *words]
    if status := main(words):
        raise RuntimeError(f"{' '.join(words)}: exit {status}")


def _sources() -> None:
    """Class folders and a CSV of smooth random photographs, none a copy of another."""
    rng = np.random.default_rng(0)
    rows = []
    for label in ("benign", "malignant"):
        Path("folders", label).mkdir(parents=True)
        Path("table").mkdir(exist_ok=True)
        for number in range(6):
            name = f"{label[0]}{number}.jpg"
            coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(f"folders/{label}/{name}", pixels)
            cv2.imwrite(f"table/{name}", pixels)
            rows.append({"image": name, "dx": label, "patient": f"p{label[0]}{number // 2}", "age": "40"})
    with Path("table/labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _predictions() -> None:
    """Two arms of two seeds, as `test` writes them."""
    rng = np.random.default_rng(0)
    for arm in ("real", "hybrid"):
        for seed in (1, 2):
            Path(f"{arm}-seed{seed}").mkdir()
            lines = ["image_id,group,label,p_benign,p_malignant,split"]
            for number in range(12):
                share = float(rng.uniform(0.1, 0.9))
                lines.append(f"i{number},g{number},{('benign', 'malignant')[number % 2]},{share!r},{1 - share!r},test")
            Path(f"{arm}-seed{seed}/predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
