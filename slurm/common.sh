# What the job scripts share: your cluster's environment, and one layout of processes for srun and the Trainer.

# ── your cluster ────────────────────────────────────────────────────────────────────────────────────────────────────
VENV=.venv
LOCAL_DISK=  # a folder of yours on the node's own disk: decoded images are kept there, as data.pixel_cache
# Modules, and the network between nodes where NCCL picks the wrong one, such as:
#   module load python/3.12
#   export NCCL_SOCKET_IFNAME=eth0
# ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

die() {
  echo "error: ${SLURM_JOB_NAME:-slurm/*.sbatch}: $*" >&2
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || die "no Slurm job. Submit it: sbatch slurm/….sbatch …"
# Lightning takes jobs of these names for a shell at work, and each process would train on its own.
[[ $SLURM_JOB_NAME != bash && $SLURM_JOB_NAME != interactive ]] || die "give the job another --job-name."
[ -f "$VENV/bin/activate" ] || die "no virtual environment $VENV in $PWD. Make one (README.md), or edit VENV in slurm/common.sh."
source "$VENV/bin/activate"
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # compute nodes rarely reach the internet

# One process a GPU. srun and the Trainer are given these numbers and no others.
nodes=$SLURM_JOB_NUM_NODES
tasks=${SLURM_NTASKS:-$nodes}
per_node=$((tasks / nodes))
gpus=${SLURM_GPUS_ON_NODE:-0}
((per_node * nodes == tasks && ${SLURM_NTASKS_PER_NODE:-$per_node} == per_node)) ||
  die "$tasks tasks on $nodes nodes with --ntasks-per-node=${SLURM_NTASKS_PER_NODE:-unset}. Give --nodes and --ntasks-per-node, not --ntasks."
[ -z "${SLURM_GPUS_PER_TASK:-}" ] ||
  die "give --gpus-per-node in place of --gpus-per-task: a process chooses among all the GPUs of its node."
((gpus == 0 || gpus == per_node)) ||
  die "$gpus GPUs but $per_node tasks a node. Give --gpus-per-node and --ntasks-per-node the same number."

# read_arguments CONFIG... [FLAG...]: into configs, flags and run; the tasks of an array each have a run of their own.
read_arguments() {
  configs=() flags=() run=
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
}

# dermsynth STAGE ARGUMENT...: in every task of the job; if one fails, so do all.
dermsynth() {
  srun --kill-on-bad-exit=1 --nodes="$nodes" --ntasks="$tasks" --ntasks-per-node="$per_node" \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    python -m dermsynth "$@" --trainer.num_nodes "$nodes" --trainer.devices "$per_node"
}
