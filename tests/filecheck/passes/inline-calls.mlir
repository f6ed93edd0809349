// RUN: tw opt %s -p inline-calls --mlir-print-debuginfo | filecheck %s

// Calls in called functions too: scopes add up, in keys and in names.
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %y = top.Call @block(%x) {scopes = ["a.", "b."]} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
func.func private @block(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %s = top.State "cache" : tensor<4x8xf32>
  %h = top.Call @layer(%x, %s) {scopes = ["in."]} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %h : tensor<4x8xf32>
}
func.func private @layer(%x: tensor<4x8xf32>, %s: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %w = top.Weight "w" : tensor<8xf32>
  %m = top.Mul %x, %w : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32> loc("scale"("model.py":7:3))
  %y = top.Add %m, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @main
// CHECK:       %[[SA:.*]] = top.State "a.cache"
// CHECK-NEXT:  %[[WA:.*]] = top.Weight "a.in.w"
// CHECK-NEXT:  %[[MA:.*]] = top.Mul %x, %[[WA]] {{.*}}loc("a.in.scale"("model.py":7:3))
// CHECK-NEXT:  %[[HA:.*]] = top.Add %[[MA]], %[[SA]]
// CHECK:       %[[SB:.*]] = top.State "b.cache"
// CHECK-NEXT:  %[[WB:.*]] = top.Weight "b.in.w"
// CHECK-NEXT:  %[[MB:.*]] = top.Mul %[[HA]], %[[WB]] {{.*}}loc("b.in.scale"("model.py":7:3))
// CHECK-NEXT:  %[[Y:.*]] = top.Add %[[MB]], %[[SB]]
// CHECK-NEXT:  func.return %[[Y]]
// CHECK-NOT:   func.func private
