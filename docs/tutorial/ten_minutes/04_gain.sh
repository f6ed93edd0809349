tw opt --load linear_gelu.py mlp.mlir -p fuse-linear-gelu,compile --cost -o /dev/null
tw compile --quiet mlp.mlir -o plain.twm
tw compile --quiet --load linear_gelu.py --top-passes fuse-linear-gelu mlp.mlir -o fused.twm
tw run plain.twm --function main --inputs inputs.npz
tw run fused.twm --function main --inputs inputs.npz
