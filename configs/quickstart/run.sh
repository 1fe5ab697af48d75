#!/usr/bin/env bash
# The whole way at small size: drawn lesions -> DreamBooth on the packaged base -> generated images -> two arms ->
# comparison. Called by `make quickstart`; needs no network. Everything is made in the folder quickstart/.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
export HF_HUB_OFFLINE=1
# Models this small gain little from a second thread, and lose tenfold where anything else is running.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
out=quickstart
if [ -e "$out/done" ]; then rm -rf "$out"; fi   # a finished one is run again from the start, an interrupted one resumes

step() { echo; echo "== $1"; shift; echo "\$ dermsynth $*"; "$python" -m dermsynth "$@"; }
once() { local made=$1; shift; [ -e "$made" ] || step "$@"; }

tiny=configs/tiny quick=configs/quickstart
once $out/isic2020/train.csv "draw lesions in the ISIC 2020 layout" phantoms --out $out/isic2020 --patients 80 --size 128
step "prepare: an image set, split by patient" prepare $out/isic2020 --out $out/sets/real --size 64
once $out/sets/prior/metadata.csv "class images of the base, for prior preservation" predict --config $tiny/prior.yaml --config $quick/prior.yaml --run $out/sets/prior
step "DreamBooth on the packaged base" fit --config $tiny/dreambooth.yaml --config $quick/dreambooth.yaml --run $out/runs/dreambooth
once $out/sets/synthetic/metadata.csv "generate" predict --config $tiny/generate.yaml --config $quick/generate.yaml --run $out/sets/synthetic --ckpt_path $out/runs/dreambooth/checkpoints/last.ckpt
for arm in baseline hybrid; do
  extra=(); [ $arm = baseline ] || extra=(--data.synthetic "[$out/sets/synthetic]")
  step "ViT, arm $arm" fit --config $tiny/vit_$arm.yaml --config $quick/vit.yaml "${extra[@]}" --run $out/runs/vit-$arm-seed0
  step "its predictions for the test patients" test --config $out/runs/vit-$arm-seed0/fit.yaml --ckpt_path $out/runs/vit-$arm-seed0/checkpoints/best.ckpt
done
step "compare the arms" compare $out/runs/vit-baseline-seed0 $out/runs/vit-hybrid-seed0 --baseline vit-baseline --out $out/comparison
touch $out/done
cat <<END

That was the way, not a result: with drawn lesions and minutes of training the numbers mean nothing.
table:       $out/comparison/comparison.txt
pictures:    $out/sets/synthetic/grid.png  $out/comparison/comparison.png
TensorBoard: ${python%python}tensorboard --logdir $out/runs

With your own ISIC download, from here ("On real images, without a GPU" in README.md has the whole walk):
  $python -m dermsynth prepare DOWNLOAD --out sets/mine --size 64
  $python -m dermsynth fit --config $tiny/vit_baseline.yaml --data.real sets/mine --data.classes "[benign, malignant]" --run runs/mine-baseline-seed0
END
