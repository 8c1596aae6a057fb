#!/usr/bin/env bash
# A sweep on Slurm, made with
#   hms-ray launch slurm --space loss_norm_threshold --gpus 16 --gpus-per-machine 4 > cluster/slurm.sh
# Start it, stop it for good:
#   sbatch cluster/slurm.sh    # with --partition, --account, --time as your cluster needs
#   hms-ray stop loss_norm_threshold --results /shared/results && scancel JOB
#
# machine  number  CPUs  memory  GPUs  runs
# worker   4       16    64 GiB  4     16 folds at once, 1 GPU each
# The first node runs the study process too. Nodes are not shared with other jobs:
# Ray's programs of all your jobs on a node would be stopped together.
#
# Shared storage: /shared, on all nodes
#   /shared/data: the competition folder; packs are made in its folder packed
#   /shared/results: studies and the fold store
#   /shared/venv: hms_ray, installed on one machine with
#     python3 -m venv /shared/venv
#     /shared/venv/bin/pip install -c constraints.txt '.[cluster]'
# Test it on every machine: hms-ray check-storage /shared
# Access: a token of the job's own. It does not encrypt; the network of the nodes must
#   be closed to strangers.
#SBATCH --job-name=hms-ray-loss_norm_threshold
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@120
set -euo pipefail

storage=/shared
export PATH="$storage/venv/bin:$PATH"
run="$storage/slurm/$SLURM_JOB_ID"
mkdir -p "$run"
rm -f "$run/study.pid" "$run/study.status"

# One token for all nodes of the job, in a file that only you can read.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$run/auth_token"
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH")
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH"

export RAY_USAGE_STATS_ENABLED=0
export HF_HOME="$storage/huggingface"
# Seconds that the head and the other nodes wait for each other.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
ulimit -n "$(ulimit -H -n)" || true

# This script runs on the first node, which becomes Ray's head. Name another address of it with
# HEAD_IP if the nodes reach each other over another network.
head_ip=${HEAD_IP:-$(hostname --all-ip-addresses | cut -d ' ' -f 1)}
port=$((20000 + SLURM_JOB_ID % 10000))

# Slurm announces the end of the job with USR1, two minutes before the time limit or, where the
# administrator allows it, before a preemption. The study process alone gets SIGTERM: Ray must
# stay until the study has stopped its folds.
announced=false
# shellcheck disable=SC2317
stop_study() {
  announced=true
  if [ -s "$run/study.status" ]; then
    : # It has ended by itself.
  elif [ -s "$run/study.pid" ]; then
    echo "The job will end: stopping the study."
    kill -TERM "$(cat "$run/study.pid")" || true
  else
    kill -TERM "$started"
  fi
}

# On the head, the study's process number and exit status are kept in files.
# shellcheck disable=SC2016
study='(echo "$BASHPID" > "$0/study.pid"; exec "$@")
status=$?
echo "$status" > "$0/study.status"
exit "$status"'

srun --kill-on-bad-exit=1 ray symmetric-run \
  --address "$head_ip:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus=16 --num-gpus=4 --disable-usage-stats -- \
  bash -c "$study" "$run" \
  hms-ray sweep loss_norm_threshold \
  --data /shared/data \
  --results /shared/results \
  --study loss_norm_threshold \
  --address auto \
  --exit-zero-when-final \
  --set resources.workers=1 \
  --set resources.cpus_per_worker=4 \
  --set resources.gpus_per_worker=1 \
  --set resources.max_groups=16 &
started=$!
trap stop_study USR1 TERM

# A signal ends wait, so it is called until srun has ended.
status=0
while kill -0 "$started" 2> /dev/null; do
  wait "$started" && status=0 || status=$?
done
if [ -s "$run/study.status" ]; then
  status=$(cat "$run/study.status")
elif "$announced"; then
  status=143
elif [ "$status" -eq 0 ] || [ "$status" -eq 143 ]; then
  status=1
fi

# 0: done, or an outcome that a new start cannot change. 130: stopped by `hms-ray stop`. 143:
# stopped in time. Everything else, such as a lost head, is tried again, but not for ever.
case "$status" in
  0 | 130) exit "$status" ;;
  143) ;;
  *) [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ] || exit "$status" ;;
esac
echo "The study ended with status $status: the job is queued again."
scontrol requeue "$SLURM_JOB_ID"
exit "$status"
