"""What the command does, one module per mode."""
