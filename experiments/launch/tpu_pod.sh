#!/bin/bash
# One run on all workers of a TPU slice:
#
#   export TPU_NAME=... ZONE=...
#   experiments/launch/tpu_pod.sh start --config=configs/cifar10_vanilla.py --workdir=SHARED_FOLDER
#   experiments/launch/tpu_pod.sh log      # of worker 0, as it grows
#   experiments/launch/tpu_pod.sh stop     # saves, then ends; start it again with the same command
#
# Every worker needs the repository in REPOSITORY (default: gdm_jax in the home folder) and its
# requirements, with jax[tpu], in PYTHON's environment. The run outlives the SSH connection.
set -euo pipefail
: "${TPU_NAME:?name of the TPU slice}" "${ZONE:?its zone}"
REPOSITORY=${REPOSITORY:-gdm_jax}
PYTHON=${PYTHON:-python3}
LOG=gdm_jax.log
PID=gdm_jax.pid

on() { # on WORKER COMMAND: the worker's number, or all
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

case "${1:-}" in
  start)
    shift
    arguments=$(printf ' %q' "$@")
    # exec: the number in the file is then Python's, and `stop` reaches it.
    on all "cd $REPOSITORY && { [ ! -f $PID ] || ! kill -0 \$(cat $PID) 2> /dev/null ||
      { echo 'it runs already' >&2; exit 1; }; } && { setsid nohup bash -c \
      'echo \$\$ > $PID; exec \"\$@\"' - $PYTHON -m gdm_jax.main --distributed$arguments \
      >> $LOG 2>&1 < /dev/null & }"
    ;;
  log) on 0 "tail -n 50 -f $REPOSITORY/$LOG" ;;
  stop) on 0 "kill -TERM \$(cat $REPOSITORY/$PID)" ;; # one is enough: they agree on a step
  *)
    sed -n '2,/^set/ s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
