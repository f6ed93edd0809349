// RUN: tw opt %s -p double-buffer | filecheck %s

// The next tile is loaded while this one is worked on; the last iteration stands behind the loop.
func.func @double(
    %x : !gdma.global<256x64xf32> {tpu.access = "read"},
    %y : !gdma.global<256x64xf32> {tpu.access = "write"}
) attributes {tpu.kernel} {
  %zero = arith.constant 0 : index
  %step = arith.constant 64 : index
  %stop = arith.constant 256 : index
  scf.for %i = %zero to %stop step %step {
    %t = gdma.load %x[%i, %zero] : !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
    %s = bdc.binary add %t, %t :
      !bdc.local<64x64xf32>, !bdc.local<64x64xf32> -> !bdc.local<64x64xf32>
    gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf32>, !gdma.global<256x64xf32>
  }
  func.return
}
// CHECK-LABEL: @double
// CHECK:         %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-NEXT:    %[[STEP:.*]] = arith.constant 64 : index
// CHECK-NEXT:    %[[LAST:.*]] = arith.constant 192 : index
// CHECK-NEXT:    %[[FIRST:.*]] = gdma.load %x[%[[ZERO]], %[[ZERO]]]
// CHECK-NEXT:    %[[END:.*]] = scf.for %[[I:.*]] = %[[ZERO]] to %[[LAST]] step %[[STEP]] iter_args(%[[T:.*]] = %[[FIRST]])
// CHECK-NEXT:      %[[J:.*]] = arith.addi %[[I]], %[[STEP]]
// CHECK-NEXT:      %[[NEXT:.*]] = gdma.load %x[%[[J]], %[[ZERO]]]
// CHECK-NEXT:      %[[S:.*]] = bdc.binary add %[[T]], %[[T]]
// CHECK-NEXT:      gdma.store %[[S]], %y[%[[I]], %[[ZERO]]]
// CHECK-NEXT:      scf.yield %[[NEXT]]
// CHECK-NEXT:    }
// CHECK-NEXT:    %[[R:.*]] = bdc.binary add %[[END]], %[[END]]
// CHECK-NEXT:    gdma.store %[[R]], %y[%[[LAST]], %[[ZERO]]]
// CHECK-NEXT:    func.return

// The next row's first tiles are asked for behind the inner loop's.
func.func @nested(
    %x : !gdma.global<192x192xf32> {tpu.access = "read"},
    %y : !gdma.global<192x64xf32> {tpu.access = "write"}
) attributes {tpu.kernel} {
  %zero = arith.constant 0 : index
  %step = arith.constant 64 : index
  %stop = arith.constant 192 : index
  scf.for %i = %zero to %stop step %step {
    %start = bdc.fill {value = 0.000000e+00 : f32} : !bdc.local<64x64xf32>
    %sum = scf.for %j = %zero to %stop step %step
        iter_args(%before = %start) -> (!bdc.local<64x64xf32>) {
      %t = gdma.load %x[%i, %j] : !gdma.global<192x192xf32> -> !bdc.local<64x64xf32>
      %after = bdc.binary add %before, %t :
        !bdc.local<64x64xf32>, !bdc.local<64x64xf32> -> !bdc.local<64x64xf32>
      scf.yield %after : !bdc.local<64x64xf32>
    }
    gdma.store %sum, %y[%i, %zero] : !bdc.local<64x64xf32>, !gdma.global<192x64xf32>
  }
  func.return
}
// CHECK-LABEL: @nested
// CHECK:         %[[FIRST:.*]] = gdma.load
// CHECK-NEXT:    %[[AHEAD:.*]] = scf.for %[[I:.*]] = {{.*}} iter_args(%[[T:.*]] = %[[FIRST]])
// CHECK-NEXT:      %[[START:.*]] = bdc.fill
// CHECK-NEXT:      scf.for %[[J:.*]] = {{.*}} iter_args(%{{.*}} = %[[START]], %{{.*}} = %[[T]])
// CHECK-NEXT:        %[[K:.*]] = arith.addi %[[J]]
// CHECK-NEXT:        gdma.load %x[%[[I]], %[[K]]]
// CHECK-NEXT:        bdc.binary add
// CHECK-NEXT:        scf.yield
// CHECK-NEXT:      }
// CHECK-NEXT:      %[[NEXTROW:.*]] = arith.addi %[[I]]
// CHECK-NEXT:      %[[NEXT:.*]] = gdma.load %x[%[[NEXTROW]],
// CHECK-NEXT:      bdc.binary add
// CHECK-NEXT:      gdma.store
// CHECK-NEXT:      scf.yield %[[NEXT]]
// CHECK-NEXT:    }
// CHECK-NEXT:    bdc.fill
// CHECK-NEXT:    scf.for {{.*}} iter_args(%{{.*}}, %{{.*}} = %[[AHEAD]])

// A load may not overtake a store to the same argument.
func.func @update(%x : !gdma.global<256x64xf32> {tpu.access = "update"})
    attributes {tpu.kernel} {
  %zero = arith.constant 0 : index
  %step = arith.constant 64 : index
  %stop = arith.constant 192 : index
  scf.for %i = %zero to %stop step %step {
    %t = gdma.load %x[%i, %zero] : !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
    %j = arith.addi %i, %step : index
    gdma.store %t, %x[%j, %zero] : !bdc.local<64x64xf32>, !gdma.global<256x64xf32>
  }
  func.return
}
// CHECK-LABEL: @update
// CHECK:         scf.for %{{.*}} = %{{.*}} to %{{.*}} step %{{[^ ]*}} {
// CHECK-NEXT:      gdma.load
// CHECK-NEXT:      arith.addi
// CHECK-NEXT:      gdma.store
