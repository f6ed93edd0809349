// RUN: tw opt %s -p 'convert-top-to-tpu{quant=w8a16}' | filecheck %s
// RUN: tw opt %s -p 'convert-top-to-tpu{quant=bf16}' | filecheck %s --check-prefix BF16
// RUN: tw opt %s -p 'convert-top-to-tpu{quant=w8a16 act="bf16" quant-head=true quant-embedding=true}' | filecheck %s --check-prefix ALL

// A linear layer of a private function: codes and scales, found under the scope of the call.
func.func private @layer(%x : tensor<4x64xf32>, %cos : tensor<4x32xf32>,
                         %sin : tensor<4x32xf32>) -> tensor<4x64xf32> {
  %w = top.Weight "proj.weight" : tensor<64x64xf32>
  %b = top.Weight "proj.bias" : tensor<64xf32>
  %h = top.MatMul %x, %w bias %b {right_transpose} :
    tensor<4x64xf32>, tensor<64x64xf32>, tensor<64xf32> -> tensor<4x64xf32>
  %y = top.Rope %h cos %cos sin %sin {num_heads = 2 : i64, rotary_dim = 32 : i64, interleaved = true} :
    tensor<4x64xf32>, tensor<4x32xf32>, tensor<4x32xf32> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}
// CHECK-LABEL: func.func private @layer(
// CHECK-SAME:    tensor<4x64xf16>, %cos: tensor<4x32xf32>, %sin: tensor<4x32xf32>) -> tensor<4x64xf16>
// CHECK-NEXT:    %[[CODES:.*]] = tpu.Weight codes "proj.weight" : tensor<64x64xi8>
// CHECK-NEXT:    %[[SCALE:.*]] = tpu.Weight scale "proj.weight" : tensor<64x1xf16>
// CHECK-NEXT:    %[[BIAS:.*]] = tpu.Weight dense "proj.bias" : tensor<64xf16>
// CHECK-NEXT:    tpu.W8A16MatMul %x, %[[CODES]] scale %[[SCALE]] bias %[[BIAS]]
// CHECK-SAME:      -> tensor<4x64xf16>
// CHECK-NEXT:    tpu.Rope
// CHECK-SAME:      tensor<4x64xf16>, tensor<4x32xf32>, tensor<4x32xf32> -> tensor<4x64xf16>

// BF16-LABEL: func.func private @layer(
// BF16:         tpu.Weight dense "proj.weight" : tensor<64x64xbf16>
// BF16:         tpu.MatMul
// BF16-SAME:      {right_transpose} : tensor<4x64xbf16>, tensor<64x64xbf16>, tensor<64xbf16> -> tensor<4x64xbf16>

// Tables of RoPE stay f32 back to their weights; the embedding and the head are not quantized, and
// the logits are f32.
func.func @model(%ids : tensor<4xi32>) -> tensor<4x80xf32> {
  %table = top.Weight "embed.weight" : tensor<80x64xf32>
  %x = top.Gather %table, %ids {top.role = "embedding"} :
    tensor<80x64xf32>, tensor<4xi32> -> tensor<4x64xf32>
  %cos = top.Weight "cos" : tensor<9x32xf32>
  %c = top.Gather %cos, %ids : tensor<9x32xf32>, tensor<4xi32> -> tensor<4x32xf32>
  %s = top.Gather %cos, %ids : tensor<9x32xf32>, tensor<4xi32> -> tensor<4x32xf32>
  %h = top.Call @layer(%x, %c, %s) {scopes = ["layers.0."]} :
    (tensor<4x64xf32>, tensor<4x32xf32>, tensor<4x32xf32>) -> tensor<4x64xf32>
  %w = top.Weight "head.weight" : tensor<80x64xf32>
  %y = top.MatMul %h, %w {right_transpose, top.role = "head"} :
    tensor<4x64xf32>, tensor<80x64xf32> -> tensor<4x80xf32>
  func.return %y : tensor<4x80xf32>
}
// CHECK-LABEL: func.func @model(%ids: tensor<4xi32>) -> tensor<4x80xf32>
// CHECK-NEXT:    tpu.Weight dense "embed.weight" : tensor<80x64xf16>
// CHECK-NEXT:    tpu.Gather
// CHECK-SAME:      -> tensor<4x64xf16>
// CHECK-NEXT:    tpu.Weight dense "cos" : tensor<9x32xf32>
// CHECK-NEXT:    tpu.Gather
// CHECK-SAME:      -> tensor<4x32xf32>
// CHECK-NEXT:    tpu.Gather
// CHECK-NEXT:    tpu.Call @layer
// CHECK-SAME:      (tensor<4x64xf16>, tensor<4x32xf32>, tensor<4x32xf32>) -> tensor<4x64xf16>
// CHECK-NEXT:    tpu.Weight dense "head.weight" : tensor<80x64xf16>
// CHECK-NEXT:    tpu.MatMul
// CHECK-SAME:      {right_transpose} : tensor<4x64xf16>, tensor<80x64xf16> -> tensor<4x80xf32>
// CHECK-NEXT:    func.return

// ALL-LABEL: func.func @model(
// ALL:         tpu.Weight codes "embed.weight" : tensor<80x64xi8>
// ALL-NEXT:    tpu.Weight scale "embed.weight" : tensor<80x1xbf16>
// ALL-NEXT:    tpu.W8A16Gather
// ALL:         tpu.W8A16MatMul
// ALL-SAME:      tensor<4x64xbf16>, tensor<80x64xi8>, tensor<80x1xbf16> -> tensor<4x80xf32>

// A weight stored as [K, N] is quantized by its columns. Marked weights have f32 scales.
func.func private @columns(%x : tensor<4x64xf32>) -> tensor<4x48xf32> {
  %w = top.Weight "w" {top.scale = "f32"} : tensor<64x48xf32>
  %y = top.MatMul %x, %w : tensor<4x64xf32>, tensor<64x48xf32> -> tensor<4x48xf32>
  func.return %y : tensor<4x48xf32>
}
// CHECK-LABEL: @columns
// CHECK-NEXT:    tpu.Weight codes "w" {transposed} : tensor<48x64xi8>
// CHECK-NEXT:    tpu.Weight scale "w" {transposed} : tensor<48x1xf32>
// CHECK-NEXT:    tpu.W8A16MatMul
// CHECK-SAME:      tensor<4x64xf16>, tensor<48x64xi8>, tensor<48x1xf32> -> tensor<4x48xf16>

// A product of two activations is not quantized; as a result of a public function it is f32.
func.func @activations(%x : tensor<4x64xf32>, %y : tensor<64x48xf32>) -> tensor<4x48xf32> {
  %z = top.MatMul %x, %y : tensor<4x64xf32>, tensor<64x48xf32> -> tensor<4x48xf32>
  func.return %z : tensor<4x48xf32>
}
// CHECK-LABEL: @activations
// CHECK-SAME:    (%x: tensor<4x64xf16>, %y: tensor<64x48xf16>) -> tensor<4x48xf32>
// CHECK-NEXT:    tpu.MatMul %x, %y : tensor<4x64xf16>, tensor<64x48xf16> -> tensor<4x48xf32>
