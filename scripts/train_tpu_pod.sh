#!/usr/bin/env bash
# Runs the same command on every host of a Cloud TPU pod slice. After an interruption, run it again to resume:
#   TPU=my-v5e-256 ZONE=us-west4-a scripts/train_tpu_pod.sh --config=configs/paca_base.py --workdir=gs://bucket/runs/base
set -euo pipefail
: "${TPU:?Set it to the name of the TPU VM.}" "${ZONE:?Set it to the zone of the TPU VM.}"
arguments=$(printf '%q ' "$@")
gcloud compute tpus tpu-vm scp --recurse --worker=all --zone="$ZONE" \
  main.py configs datasets paca_jax pyproject.toml requirements.txt README.md LICENSE "$TPU":~/paca-jax/
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="
  cd ~/paca-jax
  python3 -m pip install --quiet --user uv  # which brings Python 3.11: images of TPU VMs have older ones
  test -x .venv/bin/python || python3 -m uv venv --quiet --python 3.11 .venv
  python3 -m uv pip install --quiet -r requirements.txt '.[train,tpu]'
  .venv/bin/python main.py $arguments"
