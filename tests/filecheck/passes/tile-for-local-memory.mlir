// RUN: tw opt %s -p tile-for-local-memory | filecheck %s

// Few rows of x: output channels lie over the lanes, and the kernel is shared by both layers.
func.func @decode(%x : tensor<1x4096xf16>, %codes : tensor<13696x4096xi8>,
                  %scale : tensor<13696x1xf16>) -> tensor<1x13696xf16> {
  %unused = tpu.W8A16MatMul %x, %codes scale %scale :
    tensor<1x4096xf16>, tensor<13696x4096xi8>, tensor<13696x1xf16> -> tensor<1x13696xf16>
  %y = tpu.W8A16MatMul %x, %codes scale %scale :
    tensor<1x4096xf16>, tensor<13696x4096xi8>, tensor<13696x1xf16> -> tensor<1x13696xf16>
  func.return %y : tensor<1x13696xf16>
}
// CHECK-LABEL: @decode
// CHECK-NEXT:    tpu.Launch @[[W8A16:w8a16_matmul_1x4096x13696_f16_[0-9a-f]+]](
// CHECK-NEXT:    tpu.Launch @[[W8A16]](
// CHECK-NEXT:    func.return

// A range of columns is a view: no copy, and the kernel reads rows 9216 bytes apart.
func.func @view(%qkv : tensor<64x4608xf16>, %w : tensor<256x128xf16>,
                %b : tensor<256xf16>) -> tensor<64x256xf16> {
  %q = tpu.Slice %qkv {offsets = array<i64: 0, 4096>} : tensor<64x4608xf16> -> tensor<64x128xf16>
  %y = tpu.MatMul %q, %w bias %b {right_transpose} :
    tensor<64x128xf16>, tensor<256x128xf16>, tensor<256xf16> -> tensor<64x256xf16>
  func.return %y : tensor<64x256xf16>
}
// CHECK-LABEL: @view
// CHECK-NEXT:    tpu.Slice
// CHECK-NEXT:    tpu.Launch @[[MATMUL:matmul_64x128x256_f16_[0-9a-f]+]](
// CHECK-NEXT:    func.return

// CHECK:       func.func private @[[W8A16]](
// CHECK-SAME:    !gdma.global<1x4096xf16> {tpu.access = "read"}
// CHECK-SAME:    !gdma.global<13696x4096xi8> {tpu.access = "read"}
// CHECK-SAME:    !gdma.global<13696x1xf16> {tpu.access = "read"}
// CHECK-SAME:    !gdma.global<1x13696xf16> {tpu.access = "write"}) attributes {tpu.kernel, tpu.op = "tpu.W8A16MatMul"}
// CHECK:         gdma.load
// CHECK-NEXT:    scf.for
// CHECK-NEXT:      gdma.load
// CHECK-SAME:        -> !bdc.local<256x1xf16>
// CHECK-NEXT:      gdma.load
// CHECK-SAME:        -> !bdc.local<256x4096xi8>
// CHECK-NEXT:      bdc.dequant
// CHECK-NEXT:      bdc.mm
// CHECK-SAME:        {transpose_right} {{.*}} -> !bdc.local<256x1xf16>
// CHECK-NEXT:      bdc.transpose
// CHECK-NEXT:      gdma.store
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return

// CHECK:       func.func private @[[MATMUL]](
// CHECK-SAME:    !gdma.global<64x128xf16, pitch = 9216>
// CHECK:         bdc.mm
// CHECK-SAME:      -> !bdc.local<64x{{[0-9]+}}xf32>
// CHECK:         bdc.binary add
// CHECK-SAME:      replicated> -> !bdc.local<64x{{[0-9]+}}xf16>
// CHECK-NEXT:    gdma.store
