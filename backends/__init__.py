"""What executes the IR: chip descriptions, the command encoding, the reference, the simulated TPU."""
