"""What the IR can say: the dialects `top`, `tpu`, `gdma` and `bdc`, their types, the errors."""
