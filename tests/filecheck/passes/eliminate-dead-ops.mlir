// RUN: tw opt %s -p eliminate-dead-ops | filecheck %s

// An update of a state has an effect: it stays, and what it reads.
func.func @keeps(%x: tensor<1x8xf32>, %p: tensor<1xi32>) -> tensor<1x8xf32> {
  %s = top.State "cache" : tensor<4x8xf32>
  %n = top.Neg %x : tensor<1x8xf32> -> tensor<1x8xf32>
  %u = top.CacheUpdate %s, %n at %p : tensor<4x8xf32>, tensor<1x8xf32>, tensor<1xi32> -> tensor<4x8xf32>
  %e = top.Exp %n : tensor<1x8xf32> -> tensor<1x8xf32>
  func.return %x : tensor<1x8xf32>
}
func.func private @uncalled(%x: tensor<1x8xf32>) -> tensor<1x8xf32> {
  %y = top.Call @callee(%x) {scopes = ["a."]} : (tensor<1x8xf32>) -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
func.func private @callee(%x: tensor<1x8xf32>) -> tensor<1x8xf32> {
  func.return %x : tensor<1x8xf32>
}
// CHECK-LABEL: @keeps
// CHECK:       %[[S:.*]] = top.State "cache"
// CHECK-NEXT:  %[[N:.*]] = top.Neg %x
// CHECK-NEXT:  top.CacheUpdate %[[S]], %[[N]] at %p
// CHECK-NEXT:  func.return %x
// CHECK-NOT:   @uncalled
// CHECK-NOT:   @callee
