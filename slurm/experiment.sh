#!/usr/bin/env bash
# A whole comparison as one chain of Slurm jobs, each of which begins when the one before it ended well:
#   class images → DreamBooth → generation in shards → arms × seeds of the classifier, each fitted and tested → compare
#
#   slurm/experiment.sh --dry-run slurm/isic2020.sh  shows the sbatch lines and submits nothing
#   slurm/experiment.sh slurm/isic2020.sh            submits them and prints the jobs' ids
#
# The file says what is run. Options after it go to every sbatch, such as --partition=long; partition, account, time and
# GPUs of a stage are in its own script. The same command resumes an experiment that broke off.
set -euo pipefail

die() {
  echo "experiment.sh: error: $*" >&2
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || die "bash $BASH_VERSION is too old; 4.4 or newer is needed."
dry_run=false
if [ "${1:-}" = --dry-run ]; then
  dry_run=true
  shift
fi
(($#)) || die "name the file that says what is run, such as slurm/isic2020.sh."
[ -f slurm/common.sh ] || die "run it in the project's folder; this is $PWD."
[ -f "$1" ] || die "no file $1 in $PWD."
options=("${@:2}")
out='' prior=() dreambooth=() generate=() shards=1 arms=() seeds=1 classify=() compare=()
source "$(realpath "$1")"
for name in out dreambooth generate arms; do
  declare -n value=$name
  [ -n "${value[0]:-}" ] || die "$1: $name is not given."
done
for name in shards seeds; do
  [[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "$1: $name=${!name} is not a number from 1."
done
out=${out%"${out##*[!/]}"}  # without the slashes at its end
twice=$(printf '%s\n' "${arms[@]##*/}" | sort | uniq -d)
[ -z "$twice" ] || die "$1: arms of one name, ${twice%%$'\n'*}. Each arm's runs are named by its file; rename one."
for config in "${prior[0]:-${arms[0]}}" "${dreambooth[0]}" "${generate[0]}" "${arms[@]}"; do
  [ -f "$config" ] || die "$1: no configuration $config in $PWD."
done

# fit refuses another configuration by itself. A set that is there must be of these settings: class images of their own,
# shards of all that came before them.
declare -A settings
settings[prior]=$(declare -p prior; sha256sum -- "${prior[@]}" 2> /dev/null < /dev/null || true)
made_by=("${prior[@]}" "${dreambooth[@]}" "${generate[@]}")
settings[synthetic]=$(declare -p prior dreambooth generate shards; sha256sum -- "${made_by[@]}" 2> /dev/null || true)
for name in "${!settings[@]}"; do
  file=$out/$name.settings
  if [ -e "$file" ] && compgen -G "$out/$name*/metadata.csv" > /dev/null && [ "${settings[$name]}" != "$(< "$file")" ]; then
    diff "$file" - <<< "${settings[$name]}" >&2 || true
    die "$out: its images are made with other settings. Give another out for a new experiment."
  fi
done
if ! $dry_run; then
  type sbatch squeue > /dev/null 2>&1 || die "no sbatch on this machine; it belongs to no Slurm cluster."
  mkdir -p "$out/logs/earlier"
  # Not piped to grep: one that leaves at the first match makes squeue fail, and the pipe with it.
  queue=$(squeue --noheader --me --format=%F) || die "squeue fails, so jobs of $out may be in the queue. Try again later."
  if [ -e "$out/jobs" ] && grep -qxFf <(cut -f 1 "$out/jobs") <<< "$queue"; then
    die "$out: jobs of it are in the queue; see squeue --me."
  fi
  # So that logs/*.out are of this attempt.
  find "$out/logs" -maxdepth 1 -name '*.out' -exec mv -t "$out/logs/earlier" {} +
  # Before the first job, which may make its set at once.
  for name in "${!settings[@]}"; do printf '%s\n' "${settings[$name]}" > "$out/$name.settings"; done
  : > "$out/jobs"
fi

# stage NAME LOG SBATCH-ARGUMENT...: a job that begins when the one before it ended well.
ids=()
stage() {
  local name=$1 id word
  local line=(sbatch --parsable "--job-name=${out##*/}-$name" "--output=$out/logs/$2" "${options[@]}")
  ((! ${#ids[@]})) || line+=("--dependency=afterok:${ids[-1]}" --kill-on-invalid-dep=yes)
  line+=("${@:3}")
  if $dry_run; then
    id=${name^^}
    for word in "${line[@]}"; do
      if [[ $word =~ ^[A-Za-z0-9_./:,%=+-]+$ ]]; then printf '%s ' "$word"; else printf '%s ' "${word@Q}"; fi
    done
    echo
  else
    if ! id=$("${line[@]}"); then
      ((! ${#ids[@]})) || scancel "${ids[@]}"
      die "sbatch refused $name; what was submitted before it is cancelled."
    fi
    id=${id%%;*}  # ID;CLUSTER where there are several clusters
    printf '%s\t%s\n' "$id" "$name" | tee -a "$out/jobs"
  fi
  ids+=("$id")
}

if ((${#prior[@]})); then
  dreambooth+=(--data.synthetic "[$out/prior]")
  [ -e "$out/prior/metadata.csv" ] || stage prior %x-%A_%a.out slurm/generate.sbatch "${prior[@]}" --run "$out/prior"
fi

stage dreambooth %x-%j.out slurm/fit.sbatch "${dreambooth[@]}" --run "$out/dreambooth"

sets='' missing=''
for ((shard = 0; shard < shards; shard++)); do
  sets+="${sets:+, }$out/synthetic-shard$shard"
  [ -e "$out/synthetic-shard$shard/metadata.csv" ] || missing+=${missing:+,}$shard
done
[ -z "$missing" ] || stage generate %x-%A_%a.out --array="$missing" slurm/generate.sbatch "${generate[@]}" \
  --data.shards "$shards" --ckpt_path "$out/dreambooth/checkpoints/last.ckpt" --run "$out/synthetic"

stage classify %x-%A_%a.out --array="0-$((${#arms[@]} * seeds - 1))" slurm/classify.sbatch "${arms[@]}" \
  --data.synthetic "[$sets]" "${classify[@]}" --run "$out/runs"

runs=()
for arm in "${arms[@]##*/}"; do
  for ((seed = 0; seed < seeds; seed++)); do runs+=("$out/runs/${arm%.yaml}-seed$seed"); done
done
stage compare %x-%j.out slurm/compare.sbatch "${runs[@]}" "${compare[@]}" --out "$out/comparison"

if ! $dry_run; then
  echo
  echo "the queue:    squeue --me"
  echo "what failed:  grep -iE 'error|put back' ${out@Q}/logs/*.out"
  echo "the result:   $out/comparison/comparison.txt"
fi
