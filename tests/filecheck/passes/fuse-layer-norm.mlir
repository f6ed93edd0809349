// RUN: tw opt %s -p fuse-layer-norm | filecheck %s

func.func @with_sqrt(%x: tensor<4x8xf32>, %b: tensor<8xf32>) -> tensor<4x8xf32> {
  %m = top.Reduce mean %x : tensor<4x8xf32> -> tensor<4x1xf32>
  %c = top.Sub %x, %m : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  %q = top.Mul %c, %c : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %v = top.Reduce mean %q : tensor<4x8xf32> -> tensor<4x1xf32>
  %a = top.AddConst %v {value = 1.0e-05 : f32} : tensor<4x1xf32> -> tensor<4x1xf32>
  %r = top.Sqrt %a : tensor<4x1xf32> -> tensor<4x1xf32>
  %n = top.Div %c, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  %y = top.Add %n, %b : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @with_sqrt
// CHECK:       %[[Y:.*]] = top.LayerNorm %x bias %b : tensor<8xf32> {eps = 1.000000e-05 : f32}
// CHECK-NEXT:  func.return %[[Y]]

// Squares of the row itself are no variance.
func.func @not_centred(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %m = top.Reduce mean %x : tensor<4x8xf32> -> tensor<4x1xf32>
  %c = top.Sub %x, %m : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  %q = top.Mul %x, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %v = top.Reduce mean %q : tensor<4x8xf32> -> tensor<4x1xf32>
  %a = top.AddConst %v {value = 1.0e-05 : f32} : tensor<4x1xf32> -> tensor<4x1xf32>
  %r = top.Sqrt %a : tensor<4x1xf32> -> tensor<4x1xf32>
  %y = top.Div %c, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @not_centred
// CHECK-NOT:   top.LayerNorm
