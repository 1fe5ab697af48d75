"""Runs of arms as `test` leaves them, and the table that `compare` makes of them."""

import csv

import numpy as np

BINARY = ("benign", "malignant")


def write_run(folder, labels, groups, probabilities, classes):
    folder.mkdir(parents=True)
    order = np.random.default_rng(len(folder.name)).permutation(len(labels))  # runs need not agree in order
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "group", "split", "label", *(f"p_{name}" for name in classes)])
        for i in order:
            row = [f"ISIC_{i:04d}", f"patient-{groups[i]}", "test", classes[labels[i]]]
            writer.writerow([*row, *(f"{p:.9f}" for p in probabilities[i])])
    return folder


def draw_runs(root, skills, seeds=(1, 2), classes=BINARY, n=150, n_groups=40):
    """Runs of arms that share their images' difficulty; returns folders, labels, probabilities."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(len(classes)), rng.integers(0, len(classes), n - len(classes))])
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
    difficulty = rng.normal(size=(n, len(classes)))
    folders, probabilities = [], {}
    for arm, skill in skills.items():
        for seed in seeds:
            noise = 0.5 * rng.normal(size=difficulty.shape)
            logits = difficulty + noise + skill * np.eye(len(classes))[labels]
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            name = arm if seed is None else f"{arm}-seed{seed}"
            probabilities[name] = p
            folders.append(write_run(root / name, labels, groups, p, classes))
    return folders, labels, probabilities


def read_table(out):
    with (out / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(r["arm"], r["seeds"], r["metric"], r["class_name"]): r for r in rows}
