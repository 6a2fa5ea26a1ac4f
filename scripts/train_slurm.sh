#!/usr/bin/env bash
# One process per GPU, as JAX expects under Slurm:
#   sbatch --nodes=4 scripts/train_slurm.sh --config=configs/paca_base.py --workdir=/shared/runs/base
#SBATCH --job-name=paca
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
# Slurm sends SIGTERM three minutes before the time limit. The run saves its step and exits with status 143, and the job is
# queued again.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
srun --kill-on-bad-exit=1 .venv/bin/python main.py "$@"
status=$?
if [ "$status" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
