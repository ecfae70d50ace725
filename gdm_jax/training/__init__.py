"""Training: state, step, loop, checkpoints, logs, sharding."""
