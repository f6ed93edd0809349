"""The parts of `06_accuracy.py`: a text, a small language model, and outliers planted in it."""
