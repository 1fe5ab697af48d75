#!/usr/bin/env bash
# A throw-away Slurm of virtual nodes on one machine, for tests: no systemd, no cgroups, no accounting database.
#
#   cluster.sh install           install the Debian packages
#   cluster.sh up   DIR [NODES]  start NODES nodes (default 2) with all their files under DIR
#   cluster.sh down DIR          cancel what is left and stop them
#   cluster.sh rush DIR JOB      start a requeued JOB now instead of after Slurm's two minutes
#   cluster.sh logs DIR          the ends of the daemons' logs
#
# All of it needs root. After `up`, clients need only SLURM_CONF=DIR/slurm.conf. Each node claims 4 CPUs and 2 pretend
# GPUs; partition `test` is the default, and jobs in `urgent` take its nodes. One cluster a machine: the ports are fixed,
# and the nodes' names are in /etc/hosts while it runs.
set -euo pipefail

cpus=4 gpus=2 port=16817
mark="# dermsynth tests/slurm/cluster.sh"

die() { echo "cluster.sh: $*" >&2; exit 1; }

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    ((SECONDS < deadline)) || { echo "cluster.sh: no $what in time" >&2; return 1; }
    sleep 0.1
  done
}

names() { seq -f "dsnode%g" "$1"; }

all_idle() { [ "$(sinfo --noheader --Node --partition=test --format=%T | sort | uniq -c | tr -s ' ')" = " $1 idle" ]; }

no_jobs() { [ -z "$(timeout 5 squeue --noheader)" ]; }

gone() { # PID: it ended, or is a zombie that a container's first process never reaps
  case $(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status" 2> /dev/null) in '' | Z* | X*) return 0 ;; esac
  return 1
}

clean_hosts() { # in place: a container's /etc/hosts is a mount point, which `sed -i` cannot replace
  local kept
  kept=$(grep -v "$mark\$" /etc/hosts || true)
  printf '%s\n' "$kept" > /etc/hosts
}

write_conf() { # DIR NODES
  local dir=$1 number=0 name
  # slurmd insists on device files: each pretend GPU is another /dev/null.
  for ((number = 0; number < gpus; number++)); do [ -e "$dir/gpu$number" ] || mknod "$dir/gpu$number" c 1 3; done
  echo "Name=gpu File=$dir/gpu[0-$((gpus - 1))]" > "$dir/gres.conf"
  {
    cat << CONF
ClusterName=dermsynth
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
MpiDefault=none
# No cgroups and no binding: works in containers and small machines.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
# Nodes answer and jobs start at once; records of jobs outlive the tests.
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
KillWait=15
MinJobAge=3600
# A job in partition urgent takes the node of one in test, which gets SIGTERM, GraceTime seconds, and a requeue.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
CONF
    number=0
    for name in $(names "$2"); do
      number=$((number + 1))
      echo "NodeName=$name NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + number)) CPUs=$cpus" \
        "RealMemory=256000 Gres=gpu:$gpus State=UNKNOWN"
    done
    echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30"
    echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10"
  } > "$dir/slurm.conf"
}

up() { # DIR [NODES]
  local dir nodes=${2:-2} name
  command -v slurmctld munged > /dev/null || die "Slurm is not installed: $0 install"
  mkdir -p "$1/state"
  dir=$(cd "$1" && pwd)
  # A killed test may have left it.
  ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || die "port $port is taken: a cluster runs already. Take it down first"
  chmod 755 "$dir"
  for name in $(names "$nodes"); do mkdir -p "$dir/spool.$name"; done
  write_conf "$dir" "$nodes"
  export SLURM_CONF=$dir/slurm.conf

  # Each rank looks up the first node's name to find the others.
  clean_hosts
  echo "127.0.0.1 $(names "$nodes" | tr '\n' ' ')$mark" >> /etc/hosts

  (umask 077 && head -c 128 /dev/urandom > "$dir/munge.key")
  # --force: folders above DIR need not be what munge asks of them.
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" 2>> "$dir/munged.err"
  wait_for 10 "munge" test -S "$dir/munge.socket"
  slurmctld -c
  for name in $(names "$nodes"); do slurmd -N "$name"; done
  wait_for 60 "idle nodes" all_idle "$nodes" || { logs "$dir" >&2; down "$dir"; exit 1; }
}

down() { # DIR
  local dir file pid
  dir=$(cd "$1" && pwd)
  export SLURM_CONF=$dir/slurm.conf
  if [ -e "$dir/slurmctld.pid" ]; then
    timeout 10 squeue --noheader --format=%A | sort -u | xargs -r timeout 10 scancel || true
    wait_for 20 "empty queue" no_jobs || true
  fi
  for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2> /dev/null || true
    wait_for 10 "end of process $pid" gone "$pid" || kill -9 "$pid" 2> /dev/null || true
    rm -f "$file"
  done
  clean_hosts
}

rush() { # DIR JOB
  export SLURM_CONF=$1/slurm.conf
  wait_for 60 "requeued job $2" sh -c "squeue --noheader --jobs=$2 --format=%r | grep -q BeginTime"
  # A start within the second of the requeue dies with "Job credential revoked".
  sleep 2
  scontrol update JobId="$2" StartTime=now
}

logs() { tail -n 60 "$1"/*.log "$1"/*.err 2> /dev/null || true; } # DIR

case ${1:-} in
  install)
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge
    ;;
  up | down | rush | logs)
    (($# >= 2)) || die "$1 needs a folder"
    "$@"
    ;;
  *)
    sed -n '2,12p' "$0"
    exit 2
    ;;
esac
