tw opt --load linear_gelu.py mlp.mlir -p fuse-linear-gelu,compile --check-each-pass -o /dev/null
