// RUN: tw opt %s -p allocate-local-memory | filecheck %s
// RUN: tw opt %s -p 'double-buffer,allocate-local-memory' | filecheck %s --check-prefix AHEAD

// The stored tile has two buffers: the store of one overlaps the making of the next. Tiles of one
// command lie in different banks (16384 bytes).
func.func @cast(
    %x : !gdma.global<256x64xf32> {tpu.access = "read"},
    %y : !gdma.global<256x64xf16> {tpu.access = "write"}
) attributes {tpu.kernel} {
  %zero = arith.constant 0 : index
  %step = arith.constant 64 : index
  %stop = arith.constant 256 : index
  scf.for %i = %zero to %stop step %step {
    %t = gdma.load %x[%i, %zero] : !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
    %s = bdc.unary cast %t : !bdc.local<64x64xf32> -> !bdc.local<64x64xf16>
    gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf16>, !gdma.global<256x64xf16>
  }
  func.return
}
// CHECK:       attributes {tpu.kernel, tpu.lanes = 64 : i64}
// CHECK:         gdma.load {{.*}} {offsets = array<i32: 0>}
// CHECK-NEXT:    bdc.unary cast {{.*}} {offsets = array<i32: 16384, 32768>}
// CHECK-NEXT:    gdma.store

// Tiles that are loaded ahead, in front of the loop and in it, take turns in one ring.
// AHEAD:         %[[FIRST:.*]] = gdma.load {{.*}} {offsets = array<i32: 0, 16384>}
// AHEAD-NEXT:    scf.for {{.*}} iter_args(%{{.*}} = %[[FIRST]])
// AHEAD:           gdma.load {{.*}} {offsets = array<i32: 0, 16384>}
// AHEAD-NEXT:      bdc.unary cast {{.*}} {offsets = array<i32: 32768, 49152>}
