"""What a run needs of the machine: errors, the console, files, devices, processes."""
