// RUN: tw opt %s -p eliminate-common-subexpressions | filecheck %s

// Weights too; what differs in an attribute stays.
func.func @weights(%x: tensor<4x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %w = top.Weight "w" : tensor<8xf32>
  %v = top.Weight "w" : tensor<8xf32>
  %a = top.Mul %x, %w : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  %b = top.Mul %x, %v : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  %c = top.MulConst %a {value = 2.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %d = top.MulConst %b {value = 3.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %c, %d : tensor<4x8xf32>, tensor<4x8xf32>
}
// CHECK-LABEL: @weights
// CHECK:       %[[W:.*]] = top.Weight "w"
// CHECK-NEXT:  %[[A:.*]] = top.Mul %x, %[[W]]
// CHECK-NEXT:  top.MulConst %[[A]] {value = 2
// CHECK-NEXT:  top.MulConst %[[A]] {value = 3

// Reads of a state before and after its update are not the same.
func.func @state(%x: tensor<1x8xf32>, %p: tensor<1xi32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %s = top.State "cache" : tensor<4x8xf32>
  %a = top.Neg %s : tensor<4x8xf32> -> tensor<4x8xf32>
  %u = top.CacheUpdate %s, %x at %p : tensor<4x8xf32>, tensor<1x8xf32>, tensor<1xi32> -> tensor<4x8xf32>
  %b = top.Neg %s : tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %a, %b : tensor<4x8xf32>, tensor<4x8xf32>
}
// CHECK-LABEL: @state
// CHECK:       top.Neg
// CHECK:       top.CacheUpdate
// CHECK-NEXT:  top.Neg
