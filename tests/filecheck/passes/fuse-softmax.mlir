// RUN: tw opt %s -p fuse-softmax | filecheck %s

func.func @product(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %m = top.Reduce max %x : tensor<4x8xf32> -> tensor<4x1xf32>
  %d = top.Sub %x, %m : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  %e = top.Exp %d : tensor<4x8xf32> -> tensor<4x8xf32>
  %s = top.Reduce sum %e : tensor<4x8xf32> -> tensor<4x1xf32>
  %r = top.Reciprocal %s : tensor<4x1xf32> -> tensor<4x1xf32>
  %y = top.Mul %e, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @product
// CHECK:       %[[Y:.*]] = top.Softmax %x
// CHECK-NEXT:  func.return %[[Y]]

// The least element is not the largest: these powers may overflow.
func.func @unsafe(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %m = top.Reduce min %x : tensor<4x8xf32> -> tensor<4x1xf32>
  %d = top.Sub %x, %m : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  %e = top.Exp %d : tensor<4x8xf32> -> tensor<4x8xf32>
  %s = top.Reduce sum %e : tensor<4x8xf32> -> tensor<4x1xf32>
  %y = top.Div %e, %s : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @unsafe
// CHECK-NOT:   top.Softmax
