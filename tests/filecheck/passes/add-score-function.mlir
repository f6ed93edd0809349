// RUN: tw opt %s -p add-score-function | filecheck %s

// What follows the last position is computed of every row: norm, factor, head.
func.func @prefill(%ids: tensor<4xi32>, %last_position: tensor<1xi32>) -> tensor<1x8xf32> {
  %table = top.Weight "embedding.weight" : tensor<8x16xf32>
  %h = top.Gather %table, %ids: tensor<8x16xf32>, tensor<4xi32> -> tensor<4x16xf32>
  %last = top.Gather %h, %last_position: tensor<4x16xf32>, tensor<1xi32> -> tensor<1x16xf32>
  %w = top.Weight "norm.weight" : tensor<16xf32>
  %n = top.RMSNorm %last weight %w {eps = 1.000000e-05 : f32} : tensor<1x16xf32>, tensor<16xf32> -> tensor<1x16xf32>
  %s = top.MulConst %n {value = 2.000000e+00 : f32} : tensor<1x16xf32> -> tensor<1x16xf32>
  %head = top.Weight "head.weight" : tensor<8x16xf32>
  %logits = top.MatMul %s, %head {right_transpose, top.role = "head"} : tensor<1x16xf32>, tensor<8x16xf32> -> tensor<1x8xf32>
  func.return %logits : tensor<1x8xf32>
}
// CHECK-LABEL: @prefill(%ids: tensor<4xi32>, %last_position: tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-LABEL: @score(%ids: tensor<4xi32>) -> tensor<4x8xf32>
// CHECK:       %[[H:.*]] = top.Gather %table
// CHECK-NOT:   top.Gather
// CHECK:       top.RMSNorm %[[H]] {{.*}} -> tensor<4x16xf32>
// CHECK:       top.MulConst {{.*}} -> tensor<4x16xf32>
// CHECK:       top.MatMul {{.*}} -> tensor<4x8xf32>
