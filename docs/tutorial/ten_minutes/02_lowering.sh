tw rules check linear_gelu.py
tw opt --load linear_gelu.py mlp.mlir -p fuse-linear-gelu
