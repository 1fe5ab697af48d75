"""Hashes of what six tiny runs make, to show that a change of structure changes no result.

    python -m tests.hashes

The same seeds give the same lines, on one machine with one version of torch. Run it before and after the change.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

# Before torch is imported: sums must not depend on how many threads share them.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def main() -> None:
    """Make the runs in a folder of their own and print a hash of each."""
    from dermsynth.run.quiet import quieten
    from tests.robustness import world

    quieten()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "world")
        made.mkdir()
        with Path(folder, "log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            world.build(made)
            for words in _runs():
                _command(words)
        for name, digest in (
            ("prepare", _files(Path("prepared"), ("metadata.csv", "*.png"))),
            ("ViT, real images", _weights(Path("vit"))),
            ("ViT, real and generated images", _weights(Path("hybrid"))),
            ("its predictions", _files(Path("hybrid"), ("predictions.csv",))),
            ("DreamBooth", _weights(Path("dreambooth"))),
            ("LoRA on a latent cache", _weights(Path("lora"))),
            ("generated images", _files(Path("images"), ("metadata.csv", "*.png"))),
            ("comparison", _files(Path("comparison"), ("*.csv", "*.txt"))),
        ):
            print(f"{digest}  {name}")
        os.chdir("/")


def _runs() -> Iterator[list[str]]:
    steps = ["--trainer.max_steps", "6", "--model.lr_scheduler.total_steps", "6"]
    yield ["prepare", "folders", "--out", "prepared", "--size", "16"]
    yield ["fit", "--config", "vit.yaml", *steps, "--run", "vit"]
    mixed = ["--data.synthetic", "[generated]", "--data.allow_foreign", "[generated]", "--data.mix", "Ratio"]
    yield ["fit", "--config", "vit.yaml", *steps, *mixed, "--data.mix.ratio", "0.25", "--run", "hybrid"]
    for run in ("vit", "hybrid"):
        yield ["test", "--config", f"{run}/fit.yaml", "--ckpt_path", f"{run}/checkpoints/last.ckpt"]
    yield ["fit", "--config", "dreambooth.yaml", *steps, "--run", "dreambooth"]
    lora = ["--model.lora.rank", "2", "--data.latent_cache", "cache"]
    yield ["fit", "--config", "dreambooth.yaml", *steps, *lora, "--run", "lora"]
    last = "dreambooth/checkpoints/last.ckpt"
    yield ["predict", "--config", "generate.yaml", "--data.count", "3", "--ckpt_path", last, "--run", "images"]
    yield ["compare", "vit", "hybrid", "--baseline", "vit", "--out", "comparison"]


def _command(words: list[str]) -> None:
    from dermsynth.cli import main as command

    sys.argv = ["dermsynth", *words]
    if status := command(words):
        raise SystemExit(f"{' '.join(words)}: exit {status}")


def _weights(run: Path) -> str:
    """Of the trained weights and of the optimizer's state."""
    import torch

    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    sha = hashlib.sha256()
    _add(sha, {name: checkpoint[name] for name in ("state_dict", "optimizer_states")})
    return sha.hexdigest()[:16]


def _add(sha: "hashlib._Hash", value: object) -> None:
    import torch

    if isinstance(value, dict):
        for key in value:
            sha.update(f"{key}:".encode())
            _add(sha, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _add(sha, item)
    elif isinstance(value, torch.Tensor):
        sha.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    else:
        sha.update(repr(value).encode())


def _files(folder: Path, patterns: tuple[str, ...]) -> str:
    sha = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in folder.rglob(pattern)):
        sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()[:16]


if __name__ == "__main__":
    main()
