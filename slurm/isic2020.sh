# An experiment for slurm/experiment.sh: copy this file and edit it. A list holds configurations, then flags of dermsynth.
# All that is made lies under `out`. The stages find one another there: class images (out/prior) go to `dreambooth`, its
# checkpoint to `generate`, the generated sets to the arms, of which those of real images alone show none.
out=experiments/isic2020

prior=(configs/prior_sd15.yaml)  # () where the recipe has no prior preservation
dreambooth=(configs/dreambooth_sd15.yaml)
generate=(configs/generate_sd15.yaml)
shards=8

arms=(configs/vit_b16_baseline.yaml configs/vit_b16_oversampled.yaml configs/vit_b16_hybrid.yaml)
seeds=5
classify=()  # flags of every arm
compare=(--baseline vit_b16_baseline)
