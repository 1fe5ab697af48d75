"""Runs of three images, as `test` leaves them."""

import csv

HEADER = ["image_id", "group", "split", "label", "p_benign", "p_malignant"]
ROWS = [
    ["ISIC_2", "patient-b", "test", "malignant", "0.25", "0.75"],
    ["ISIC_1", "patient-a", "test", "benign", "0.9", "0.1"],
    ["ISIC_3", "patient-a", "test", "benign", "0.6", "0.4"],
]


def write(folder, rows=ROWS, header=HEADER):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def configured(folder, seed=1, steps=100, lr=0.1, cache="here", callback="a"):
    write(folder)
    (folder / "fit.yaml").write_text(
        f"seed_everything: {seed}\nrun: {folder}\nckpt_path: null\n"
        f"trainer: {{max_steps: {steps}, callbacks: [{{class_path: {callback}}}]}}\n"
        f"model: {{optimizer: {{lr: {lr}}}}}\n"
        f"data: {{init_args: {{pixel_cache: {cache}}}}}\n"
    )
    return folder
