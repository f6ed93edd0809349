// RUN: tw opt %s -p fuse-gelu | filecheck %s

func.func @halved_factor(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %h = top.MulConst %x {value = 0.5 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %z = top.MulConst %x {value = 0.707106769 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %e = top.Erf %z : tensor<4x8xf32> -> tensor<4x8xf32>
  %a = top.AddConst %e {value = 1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %h, %a : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @halved_factor
// CHECK:       %[[Y:.*]] = top.GELU %x approximate none
// CHECK-NEXT:  func.return %[[Y]]

func.func @tanh(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %s = top.Mul %x, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %q = top.Mul %s, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %k = top.MulConst %q {value = 0.044715 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %a = top.Add %x, %k : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %u = top.MulConst %a {value = 0.797884583 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %t = top.Tanh %u : tensor<4x8xf32> -> tensor<4x8xf32>
  %o = top.AddConst %t {value = 1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %p = top.Mul %x, %o : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.MulConst %p {value = 0.5 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @tanh
// CHECK:       %[[Y:.*]] = top.GELU %x approximate tanh
// CHECK-NEXT:  func.return %[[Y]]

// Of another slope it is no GELU.
func.func @steeper(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %h = top.MulConst %x {value = 0.5 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %z = top.MulConst %x {value = 0.71 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %e = top.Erf %z : tensor<4x8xf32> -> tensor<4x8xf32>
  %a = top.AddConst %e {value = 1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %h, %a : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @steeper
// CHECK:       top.Erf
