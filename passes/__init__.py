"""What rewrites the IR: one pass per file, the file named as the pass."""
