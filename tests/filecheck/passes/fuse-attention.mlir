// RUN: tw opt %s -p fuse-attention | filecheck %s

func.func @masked(%q: tensor<4x8xf32>, %k: tensor<6x8xf32>, %v: tensor<6x8xf32>, %mask: tensor<4x6xf32>) -> tensor<4x8xf32> {
  %q3 = top.Reshape %q : tensor<4x8xf32> -> tensor<4x2x4xf32>
  %qh = top.Permute %q3 {order = array<i64: 1, 0, 2>} : tensor<4x2x4xf32> -> tensor<2x4x4xf32>
  %k3 = top.Reshape %k : tensor<6x8xf32> -> tensor<6x2x4xf32>
  %kh = top.Permute %k3 {order = array<i64: 1, 0, 2>} : tensor<6x2x4xf32> -> tensor<2x6x4xf32>
  %v3 = top.Reshape %v : tensor<6x8xf32> -> tensor<6x2x4xf32>
  %vh = top.Permute %v3 {order = array<i64: 1, 0, 2>} : tensor<6x2x4xf32> -> tensor<2x6x4xf32>
  %s = top.BatchMatMul %qh, %kh {right_transpose} : tensor<2x4x4xf32>, tensor<2x6x4xf32> -> tensor<2x4x6xf32>
  %c = top.MulConst %s {value = 0.5 : f32} : tensor<2x4x6xf32> -> tensor<2x4x6xf32>
  %a = top.Add %c, %mask : tensor<2x4x6xf32>, tensor<4x6xf32> -> tensor<2x4x6xf32>
  %p = top.Softmax %a : tensor<2x4x6xf32> -> tensor<2x4x6xf32>
  %o = top.BatchMatMul %p, %vh : tensor<2x4x6xf32>, tensor<2x6x4xf32> -> tensor<2x4x4xf32>
  %oh = top.Permute %o {order = array<i64: 1, 0, 2>} : tensor<2x4x4xf32> -> tensor<4x2x4xf32>
  %y = top.Reshape %oh : tensor<4x2x4xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @masked
// CHECK:       %[[Y:.*]] = top.Attention %q, %k, %v mask %mask {num_heads = 2 : i64, num_kv_heads = 2 : i64, scale = 5.000000e-01 : f32}
// CHECK-NEXT:  func.return %[[Y]]

func.func @scaled_queries(%q: tensor<4x8xf32>, %k: tensor<6x4xf32>, %v: tensor<6x4xf32>) -> tensor<4x8xf32> {
  %s = top.MulConst %q {value = 0.5 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Attention %s, %k, %v {num_heads = 2 : i64, num_kv_heads = 1 : i64, scale = 0.25 : f32} :
    tensor<4x8xf32>, tensor<6x4xf32>, tensor<6x4xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @scaled_queries
// CHECK:       top.Attention %q, %k, %v {{.*}}scale = 1.250000e-01 : f32

// Heads that are not the slow axis of the columns are something else.
func.func @other_heads(%q: tensor<4x8xf32>, %k: tensor<6x8xf32>, %v: tensor<6x8xf32>) -> tensor<4x8xf32> {
  %q3 = top.Reshape %q : tensor<4x8xf32> -> tensor<2x4x4xf32>
  %k3 = top.Reshape %k : tensor<6x8xf32> -> tensor<2x6x4xf32>
  %v3 = top.Reshape %v : tensor<6x8xf32> -> tensor<2x6x4xf32>
  %s = top.BatchMatMul %q3, %k3 {right_transpose} : tensor<2x4x4xf32>, tensor<2x6x4xf32> -> tensor<2x4x6xf32>
  %c = top.MulConst %s {value = 0.5 : f32} : tensor<2x4x6xf32> -> tensor<2x4x6xf32>
  %p = top.Softmax %c : tensor<2x4x6xf32> -> tensor<2x4x6xf32>
  %o = top.BatchMatMul %p, %v3 : tensor<2x4x6xf32>, tensor<2x6x4xf32> -> tensor<2x4x4xf32>
  %y = top.Reshape %o : tensor<2x4x4xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @other_heads
// CHECK-NOT:   top.Attention
