// RUN: tw opt %s -p simplify-casts | filecheck %s

func.func @other_type(%x: tensor<4x8xf16>) -> tensor<4x8xbf16> {
  %w = tpu.Cast %x : tensor<4x8xf16> -> tensor<4x8xf32>
  %y = tpu.Cast %w : tensor<4x8xf32> -> tensor<4x8xbf16>
  func.return %y : tensor<4x8xbf16>
}
// CHECK-LABEL: @other_type
// CHECK:       %[[Y:.*]] = tpu.Cast %x : tensor<4x8xf16> -> tensor<4x8xbf16>
// CHECK-NEXT:  func.return %[[Y]]

// The first cast rounds: it stays.
func.func @rounds(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %n = tpu.Cast %x : tensor<4x8xf32> -> tensor<4x8xf16>
  %y = tpu.Cast %n : tensor<4x8xf16> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @rounds
// CHECK:       tpu.Cast %x
// CHECK-NEXT:  tpu.Cast
