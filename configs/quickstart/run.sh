#!/usr/bin/env bash
# The whole way at small size: drawn lesions -> base -> DreamBooth -> generated images -> two arms -> comparison.
# Called by `make quickstart`; needs no network. Everything is made in the folder quickstart/.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
export HF_HUB_OFFLINE=1
out=quickstart
if [ -e "$out/done" ]; then rm -rf "$out"; fi   # a finished one is made anew, an interrupted one goes on

step() { echo; echo "== $1"; shift; echo "\$ dermsynth $*"; "$python" -m dermsynth "$@"; }
once() { local made=$1; shift; [ -e "$made" ] || step "$@"; }

tiny=configs/tiny quick=configs/quickstart
once $out/isic2020/train.csv "draw lesions in the ISIC 2020 layout" phantoms --out $out/isic2020 --patients 80 --size 128
step "prepare: an image set, split by patient" prepare $out/isic2020 --out $out/sets/real --size 64
once $out/models/untrained "an untrained Stable Diffusion, very small" init $quick/stable-diffusion --out $out/models/untrained
step "train its autoencoder" fit --config $tiny/autoencoder.yaml --config $quick/autoencoder.yaml --run $out/runs/autoencoder
once $out/models/autoencoder "export it" export $out/runs/autoencoder/checkpoints/last.ckpt --out $out/models/autoencoder
step "train text encoder and UNet: the base" fit --config $tiny/base.yaml --config $quick/base.yaml --run $out/runs/base
once $out/models/base "export it" export $out/runs/base/checkpoints/last.ckpt --out $out/models/base
once $out/sets/prior/metadata.csv "class images for prior preservation" predict --config $tiny/prior.yaml --config $quick/prior.yaml --run $out/sets/prior
step "DreamBooth" fit --config $tiny/dreambooth.yaml --config $quick/dreambooth.yaml --run $out/runs/dreambooth
once $out/sets/synthetic/metadata.csv "generate" predict --config $tiny/generate.yaml --config $quick/generate.yaml --run $out/sets/synthetic --ckpt_path $out/runs/dreambooth/checkpoints/last.ckpt
for arm in baseline hybrid; do
  extra=(); [ $arm = baseline ] || extra=(--data.synthetic "[$out/sets/synthetic]")
  step "ViT, arm $arm" fit --config $tiny/vit_$arm.yaml --config $quick/vit.yaml "${extra[@]}" --run $out/runs/vit-$arm-seed0
  step "its predictions for the test patients" test --config $out/runs/vit-$arm-seed0/fit.yaml --ckpt_path $out/runs/vit-$arm-seed0/checkpoints/best.ckpt
done
step "compare the arms" compare $out/runs/vit-baseline-seed0 $out/runs/vit-hybrid-seed0 --baseline vit-baseline --out $out/comparison
touch $out/done
echo
echo "That was the way, not a result: with drawn lesions and minutes of training the numbers mean nothing."
echo "table:       $out/comparison/comparison.txt"
echo "pictures:    $out/sets/synthetic/grid.png  $out/comparison/comparison.png"
echo "TensorBoard: ${python%python}tensorboard --logdir $out/runs"
