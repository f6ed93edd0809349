// RUN: tw opt %s -p insert-waits | filecheck %s

// Two buffers for loads, two for stores: the third load waits for the first compute.
func.func @cast(
    %x : !gdma.global<256x64xf32> {tpu.access = "read"},
    %y : !gdma.global<256x64xf16> {tpu.access = "write"}
) attributes {tpu.kernel, tpu.lanes = 64 : i64} {
  %zero = arith.constant 0 : index
  %step = arith.constant 64 : index
  %last = arith.constant 192 : index
  %first = gdma.load %x[%zero, %zero] {offsets = array<i32: 0, 16384>} :
    !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
  %end = scf.for %i = %zero to %last step %step
      iter_args(%t = %first) -> (!bdc.local<64x64xf32>) {
    %j = arith.addi %i, %step : index
    %next = gdma.load %x[%j, %zero] {offsets = array<i32: 0, 16384>} :
      !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
    %s = bdc.unary cast %t {offsets = array<i32: 32768, 49152>} :
      !bdc.local<64x64xf32> -> !bdc.local<64x64xf16>
    gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf16>, !gdma.global<256x64xf16>
    scf.yield %next : !bdc.local<64x64xf32>
  }
  %r = bdc.unary cast %end {offsets = array<i32: 32768, 49152>} :
    !bdc.local<64x64xf32> -> !bdc.local<64x64xf16>
  gdma.store %r, %y[%last, %zero] : !bdc.local<64x64xf16>, !gdma.global<256x64xf16>
  func.return
}
// GDMA: load 1, (load 2, store 3), (load 4, store 5), (load 6, store 7), store 8.
// CHECK:       gdma.load {{.*}} waits = array<i32: 0>}
// A store waits for the compute that also read the buffer of the load behind it.
// CHECK:         gdma.load {{.*}} waits = array<i32: 0, 0, 0>}
// The third compute needs load 4, and so knows that store 3, whose buffer it takes, is done.
// CHECK:         bdc.unary {{.*}} waits = array<i32: 1, 2, 4>}
// CHECK-NEXT:    gdma.store {{.*}} {waits = array<i32: 1, 2, 3>}
// CHECK:       bdc.unary {{.*}} waits = array<i32: 6>}
// CHECK-NEXT:  gdma.store {{.*}} {waits = array<i32: 4>}
