"""What executes the IR: chips, the command encoding, the reference, the simulated TPU."""
