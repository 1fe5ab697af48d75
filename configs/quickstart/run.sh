#!/usr/bin/env bash
# All of it at small size, from one file: drawn lesions -> DreamBooth on the packaged base -> generated images ->
# three arms -> comparison. Called by `make quickstart`; needs no network. Everything is made in the folder quickstart/.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
export HF_HUB_OFFLINE=1
# Models this small gain little from a second thread, and are ten times slower with it where anything else is running.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
out=quickstart
if [ -e "$out/done" ]; then rm -rf "$out"; fi   # a finished one is run again from the start, an interrupted one is resumed
"$python" -m dermsynth study configs/studies/quickstart.yaml --out $out --jobs 2
touch $out/done
cat <<END

This shows how the parts fit together. With drawn lesions and minutes of training the numbers mean nothing.
table:       $out/comparison/comparison.txt
pictures:    $out/sets/synthetic-seed0/grid.png  $out/comparison/comparison.png
TensorBoard: ${python%python}tensorboard --logdir $out

What was run, command by command:
  $python -m dermsynth study configs/studies/quickstart.yaml --out $out --dry-run
With your own ISIC download, from here ("A study from one file" in README.md says how):
  $python -m dermsynth prepare DOWNLOAD --out sets/mine --size 64
  $python -m dermsynth fit --config configs/tiny/vit.yaml --data.real sets/mine --data.classes "[benign, malignant]" --run runs/mine-real-seed0
END
