"""What things cost: throughput, steps, sweeps, memory."""
