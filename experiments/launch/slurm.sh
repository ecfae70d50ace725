#!/bin/bash
# One run on several nodes of a SLURM cluster, a process for each GPU:
#
#   sbatch experiments/launch/slurm.sh --config=configs/cifar10_vanilla.py --workdir=SHARED_FOLDER
#
# Submit it from the repository, with the Python environment active. Set nodes, GPUs and time here or
# as options of sbatch; tasks and GPUs of a node must be equally many, since under SLURM jax gives
# each process the GPU of its local number. A run longer than the time limit is several jobs that
# wait for each other, each going on where the last one stopped: give sbatch --dependency=singleton
# and submit them all.
#
#SBATCH --job-name=gdm_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# srun does not take --cpus-per-task from above by itself.
# TERM reaches the processes, not this shell, 300 seconds before the time is over (SLURM may be 60
# seconds early): enough for some steps and a checkpoint. They stop one after the other, so the step
# is not killed when the first of them ends, but --wait seconds later.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=120 python -m gdm_jax.main "$@"
