sed -i.kept 's/tk.gelu(t, "tanh")/tk.gelu(t, "none")/' linear_gelu.py
tw opt --load linear_gelu.py mlp.mlir -p fuse-linear-gelu,compile --check-each-pass -o /dev/null
tw bisect tilewright-reproducers/tile-for-local-memory-miscompilation
tw reduce tilewright-reproducers/tile-for-local-memory-miscompilation
mv linear_gelu.py.kept linear_gelu.py
tw replay --load linear_gelu.py tilewright-reproducers/tile-for-local-memory-miscompilation
