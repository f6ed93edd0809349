tw trace --load linear_gelu.py mlp.mlir -p fuse-linear-gelu,compile --html trace.html
