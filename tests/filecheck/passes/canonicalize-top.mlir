// RUN: tw opt %s -p canonicalize-top | filecheck %s

func.func @chain(%x: tensor<4x8xf32>) -> tensor<2x16xf32> {
  %a = top.Neg %x : tensor<4x8xf32> -> tensor<4x8xf32>
  %b = top.Neg %a : tensor<4x8xf32> -> tensor<4x8xf32>
  %c = top.MulConst %b {value = 1.000000e+00 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %d = top.AddConst %c {value = 0.000000e+00 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %e = top.Reshape %d : tensor<4x8xf32> -> tensor<32xf32>
  %f = top.Reshape %e : tensor<32xf32> -> tensor<2x16xf32>
  func.return %f : tensor<2x16xf32>
}
// CHECK-LABEL: @chain
// CHECK-NEXT:  %[[Y:.*]] = top.Reshape %x : tensor<4x8xf32> -> tensor<2x16xf32>
// CHECK-NEXT:  func.return %[[Y]]

func.func @there_and_back(%x: tensor<2x3x4xf32>) -> tensor<2x3x4xf32> {
  %a = top.Permute %x {order = array<i64: 2, 0, 1>} : tensor<2x3x4xf32> -> tensor<4x2x3xf32>
  %b = top.Permute %a {order = array<i64: 1, 2, 0>} : tensor<4x2x3xf32> -> tensor<2x3x4xf32>
  %c = top.Concat %b {axis = 1 : i64} : tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  %d = top.Cast %c : tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %d : tensor<2x3x4xf32>
}
// CHECK-LABEL: @there_and_back
// CHECK-NEXT:  func.return %x

func.func @constants(%x: tensor<8xf32>) -> tensor<8xf32> {
  %a = top.MulConst %x {value = 5.000000e-01 : f32} : tensor<8xf32> -> tensor<8xf32>
  %b = top.MulConst %a {value = 3.000000e+00 : f32} : tensor<8xf32> -> tensor<8xf32>
  %c = top.MulConst %b {value = 1.000000e-01 : f32} : tensor<8xf32> -> tensor<8xf32>
  func.return %c : tensor<8xf32>
}
// 1.5 is exact, 0.15 would be rounded once more.
// CHECK-LABEL: @constants
// CHECK-NEXT:  %[[A:.*]] = top.MulConst %x {value = 1.500000e+00 : f32}
// CHECK-NEXT:  top.MulConst %[[A]] {value = 1.000000e-01 : f32}

func.func @slices(%x: tensor<6x8xf32>) -> tensor<2x3xf32> {
  %a = top.Slice %x {offsets = array<i64: 1, 2>} : tensor<6x8xf32> -> tensor<4x5xf32>
  %b = top.Slice %a {offsets = array<i64: 2, 1>} : tensor<4x5xf32> -> tensor<2x3xf32>
  func.return %b : tensor<2x3xf32>
}
// CHECK-LABEL: @slices
// CHECK-NEXT:  top.Slice %x {offsets = array<i64: 3, 3>} : tensor<6x8xf32> -> tensor<2x3xf32>
