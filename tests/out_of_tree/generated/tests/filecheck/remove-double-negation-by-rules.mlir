// RUN: tw opt %s -p remove-double-negation-by-rules | filecheck %s

// Two negations are none; what else uses the first one keeps it.
func.func @twice(%x : tensor<4x64xf32>) -> (tensor<4x64xf32>, tensor<4x64xf32>) {
  %n = top.Neg %x : tensor<4x64xf32> -> tensor<4x64xf32>
  %m = top.Neg %n : tensor<4x64xf32> -> tensor<4x64xf32>
  %y = top.Exp %m : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %y, %n : tensor<4x64xf32>, tensor<4x64xf32>
}
// CHECK-LABEL: func.func @twice(
// CHECK-NEXT:    %[[N:.*]] = top.Neg %x
// CHECK-NEXT:    %[[Y:.*]] = top.Exp %x
// CHECK-NEXT:    func.return %[[Y]], %[[N]]

// One of three stays.
func.func @thrice(%x : tensor<4x64xf32>) -> tensor<4x64xf32> {
  %n = top.Neg %x : tensor<4x64xf32> -> tensor<4x64xf32>
  %m = top.Neg %n : tensor<4x64xf32> -> tensor<4x64xf32>
  %o = top.Neg %m : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %o : tensor<4x64xf32>
}
// CHECK-LABEL: func.func @thrice(
// CHECK-NEXT:    %[[O:.*]] = top.Neg %x
// CHECK-NEXT:    func.return %[[O]]
