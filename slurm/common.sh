# What the job scripts share: your cluster's environment, and one layout of processes for srun and the Trainer.

# ── your cluster ────────────────────────────────────────────────────────────────────────────────────────────────────
VENV=.venv   # its folder; empty where the lines below activate an environment, such as conda's
LOCAL_DISK=  # a folder of yours on the node's own disk: decoded images are kept there, as data.pixel_cache
set +eu      # under which many clusters' modules and conda fail
# Modules, and the network between nodes where NCCL and gloo pick the wrong one, such as:
#   module load python/3.12
#   export NCCL_SOCKET_IFNAME=eth0 GLOO_SOCKET_IFNAME=eth0
set -eu
# ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

die() {
  echo "error: ${SLURM_JOB_NAME:-slurm/*.sbatch}: $*" >&2
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || die "bash $BASH_VERSION is too old; 4.4 or newer is needed."
[ -n "${SLURM_JOB_ID:-}" ] || die "no Slurm job. Submit it: sbatch slurm/….sbatch …"
for name in SLURM_JOB_NAME SLURM_JOB_NUM_NODES; do
  [ -n "${!name:-}" ] || die "$name is not set, which Slurm does in a job. Does your ~/.bashrc or a module unset it?"
done
# Lightning takes jobs of these names for a shell at work, and each process would train on its own.
[[ $SLURM_JOB_NAME != bash && $SLURM_JOB_NAME != interactive ]] || die "give the job another --job-name."
if [ -n "$VENV" ]; then
  [ -f "$VENV/bin/activate" ] || die "no virtual environment $VENV in $PWD. Make one (README.md), or edit VENV in slurm/common.sh."
  source "$VENV/bin/activate"
fi
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # compute nodes rarely reach the internet

# One process per GPU. srun and the Trainer are given these numbers and no others.
nodes=$SLURM_JOB_NUM_NODES
tasks=${SLURM_NTASKS:-$((nodes * ${SLURM_NTASKS_PER_NODE:-1}))}
per_node=$((tasks / nodes))
gpus=${SLURM_GPUS_ON_NODE:-0}
((per_node * nodes == tasks && ${SLURM_NTASKS_PER_NODE:-$per_node} == per_node)) ||
  die "$tasks tasks on $nodes nodes with --ntasks-per-node=${SLURM_NTASKS_PER_NODE:-unset}. Give --nodes and --ntasks-per-node, not --ntasks."
[ -z "${SLURM_GPUS_PER_TASK:-}" ] ||
  die "give --gpus-per-node in place of --gpus-per-task: a process chooses among all the GPUs of its node."
((gpus == 0 || gpus == per_node)) ||
  die "$gpus GPUs but $per_node tasks a node. Give --gpus-per-node and --ntasks-per-node the same number."

# read_arguments CONFIG... [FLAG...]: into configs, flags and run; the tasks of an array each have a run of their own.
# Into cached: the flag that keeps decoded images on the node's disk, unless there is a latent cache, which needs none.
read_arguments() {
  configs=() flags=() run= cached=()
  while (($#)) && [[ $1 != -* ]]; do
    [ -f "$1" ] || die "no configuration $1 in $PWD."
    configs+=("$1")
    shift
  done
  while (($#)); do
    case $1 in
      --run) run=${2:-}; shift ;;
      --run=*) run=${1#--run=} ;;
      *) flags+=("$1") ;;
    esac
    shift || true
  done
  [ -n "$run" ] || die "--run FOLDER must be given."
  local word files=("${configs[@]}")
  for word in "${flags[@]}"; do if [ -f "$word" ]; then files+=("$word"); fi; done  # of --config
  [ -z "$LOCAL_DISK" ] || grep -qs '^[^#]*latent_cache' /dev/null "${files[@]}" <(printf '%s\n' "${flags[@]}") ||
    cached=("--data.pixel_cache=$LOCAL_DISK")
}

# dermsynth STAGE ARGUMENT...: in every task of the job; if one fails, so do all.
dermsynth() {
  local status=0
  if [ -z "${lock:-}" ]; then lock_run; fi
  # --export=ALL: after sbatch --export=NONE, which is the default of some clusters, srun would drop the environment.
  srun --kill-on-bad-exit=1 --export=ALL --nodes="$nodes" --ntasks="$tasks" --ntasks-per-node="$per_node" \
    ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
    python -m dermsynth "$@" --trainer.num_nodes "$nodes" --trainer.devices "$per_node" || status=$?
  # Killed by SIGUSR1 or SIGTERM. A training that is at its steps saves its place and does this itself.
  ((status != 128 + 10 && status != 128 + 15)) || requeue "$status"
  return "$status"
}

# Hold the run's folder, in which two jobs would delete each other's files. A job that is ending gets two minutes. Where
# the shared disk has no locks, flock says so and the job runs without.
lock_run() {
  mkdir -p "$run"
  exec {lock}>> "$run/.job"
  flock --timeout 120 "$lock" || (($? != 1)) || die "another job is at work in $run; see squeue --me."
}

# requeue STATUS: give this job, or this task of its array, back to the queue, or say why it is not. After twenty starts
# that came to nothing it is left to a person.
requeue() {
  local job=$SLURM_JOB_ID facts why
  [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  if ! facts=$(scontrol show job "$job" || { sleep 1 && scontrol show job "$job"; }); then
    why="Slurm does not answer, so job $job is not put back into the queue; submit it again."
  elif [[ $facts != *" JobState=RUNNING "* ]]; then  # though Slurm would take it back
    why="Slurm itself ends job $job, as after scancel or when its time is up, so it is not put back into the queue."
  elif (($1 != 128 + 10)) && [[ $facts != *" PreemptTime="[0-9]* ]]; then  # of one that fails, srun ends the others so
    why="Job $job was not preempted: another of its processes failed. It is not put back into the queue."
  elif ((${SLURM_RESTART_COUNT:-0} >= 20)) && [ -z "$(find "$run/checkpoints/last.ckpt" -mtime -1 2> /dev/null)" ]; then
    why="It is left to you after $SLURM_RESTART_COUNT restarts and no checkpoint in a day. Is --time too short?"
  else
    echo "$run: stopped by a signal before it could save its place. Job $job goes back into the queue."  # which ends it
    ! scontrol requeue "$job" || return 0
    why="Slurm refuses to put job $job back into the queue; submit it again."
  fi
  echo "error: $run: stopped by a signal. $why" >&2
}
