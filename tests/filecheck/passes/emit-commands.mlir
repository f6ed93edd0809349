// RUN: tw opt %s -p emit-commands | filecheck %s
// RUN: tw opt %s -p 'double-buffer,allocate-local-memory,insert-waits,emit-commands' | filecheck %s --check-prefix ALL

func.func @zeros(%y : !gdma.global<8x64xf32, pitch = 512> {tpu.access = "write"})
    attributes {tpu.kernel, tpu.lanes = 64 : i64, tpu.op = "tpu.Fill"} {
  %zero = arith.constant 0 : index
  %t = bdc.fill {value = 0.000000e+00 : f32, offsets = array<i32: 64>, waits = array<i32: 0>} :
    !bdc.local<8x64xf32>
  gdma.store %t, %y[%zero, %zero] {waits = array<i32: 1>} :
    !bdc.local<8x64xf32>, !gdma.global<8x64xf32, pitch = 512>
  func.return
}
// CHECK-NOT:   func.func
// CHECK:       bdc.program @zeros {op = "tpu.Fill",
// CHECK-SAME:    arguments = [#bdc.argument<write, !gdma.global<8x64xf32, pitch = 512>>],
// A store (02) of f32 (00) with id 1 that waits for 1: 8 rows of 64 columns at local byte 64.
// CHECK-SAME:    gdma = #bdc.records<"02000000010000000100000008000000400000004000000000010000
// A fill (07) with id 1.
// CHECK-SAME:    bdc = #bdc.records<"070000000100000000000000080000004000000000000000
// CHECK-SAME:    local_bytes = 320 : i64

// ALL:         bdc.program @zeros
// ALL-SAME:      local_bytes = 256 : i64
