python model.py
tw opt mlp.mlir -p convert-top-to-tpu
tw opt mlp.mlir -p compile --cost -o /dev/null
