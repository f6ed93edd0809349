"""Ready-made checkpoints: weights that GPTQ or AWQ has quantized already, used as they are.

Such a checkpoint has, in the place of a linear layer's `X.weight`, the tensors `X.qweight` (codes,
several in an int32), `X.qzeros` (zero points, packed as well), `X.scales`, and for GPTQ `X.g_idx`
(the group of each input). Codes, zero points and scales are taken over to the bit: nothing is
rounded again.

`config` reads what the checkpoint says of itself, `layouts` unpacks, `order` deals with inputs that
are not in the order of their groups, `checkpoint` presents the whole as a `WeightSource`.

Sources: the layers' definitions in AutoGPTQ and GPTQModel (`gptq`, `gptq_v2`) and in AutoAWQ
(`gemm`), and how transformers and vLLM read their configurations.
"""
