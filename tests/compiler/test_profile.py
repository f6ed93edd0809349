"""Where the cycles go: every cycle has one cause, and parts sum up to the whole."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.compiler.small_models import TINY_CHATGLM, model_of

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Function, Program
from tilewright.backends.simulator.timing import time_kernel
from tilewright.compiler.cli import run
from tilewright.compiler.estimate import estimate
from tilewright.compiler.importers.synthetic import write_checkpoint
from tilewright.compiler.performance import ProgramTimes
from tilewright.compiler.pipeline import CompileOptions, build_program, lower
from tilewright.compiler.profile import (
    EngineProfile,
    ProfileRow,
    by_kernel,
    by_layer,
    chrome_trace,
    layer_of,
    merge_equal,
    whole,
)

SEQ = 24
CHIP = load_chip("bm1684x")


@pytest.fixture(scope="module", params=["f16", "w8a16"])
def times(request: pytest.FixtureRequest) -> ProgramTimes:
    module = lower(model_of(TINY_CHATGLM, SEQ).trace(), CompileOptions(request.param))
    return ProgramTimes(build_program(module, "bm1684x").program, CHIP)


@pytest.fixture(params=[0, 1], ids=["prefill", "decode"])
def function(times: ProgramTimes, request: pytest.FixtureRequest) -> Function:
    return times.program.functions[request.param]


def test_launches_sum_up(times: ProgramTimes, function: Function) -> None:
    """One launch after the other, timed anew."""
    costs = [time_kernel(times.program.kernels[x.kernel], CHIP) for x in function.launches]
    total = times.function(function)
    assert total.launches == len(costs)
    assert total.cycles == sum(cost.cycles for cost in costs)
    assert total.gdma_busy_cycles == sum(cost.gdma.busy for cost in costs)
    assert total.bdc_busy_cycles == sum(cost.bdc.busy for cost in costs)
    assert total.bytes_in == sum(cost.bytes_in for cost in costs)
    assert total.bytes_out == sum(cost.bytes_out for cost in costs)
    assert total.seconds == total.cycles / CHIP.clock_hz + CHIP.host_launch_s
    assert 0 < total.roofline <= 1
    assert total.roofline == max(total.gdma_busy, total.bdc_busy)
    assert total.bound == ("memory" if total.gdma_busy >= total.bdc_busy else "compute")


def test_weights_are_moved_once_a_token(times: ProgramTimes) -> None:
    decode = next(f for f in times.program.functions if f.name == "decode")
    weights = sum(b.size_bytes for b in times.program.buffers if b.kind == "weight")
    assert times.function(decode).bytes_in > 0.5 * weights


def test_rows_sum_up(times: ProgramTimes, function: Function) -> None:
    row, total = whole(times, function), times.function(function)
    assert row.cycles == total.cycles
    assert row.gdma.busy == pytest.approx(total.gdma_busy)
    assert row.bdc.busy == pytest.approx(total.bdc_busy)
    for rows in (by_layer(times, function), by_kernel(times, function)):
        assert sum(each.launches for each in rows) == total.launches
        assert sum(each.cycles for each in rows) == total.cycles
        assert sum(each.bytes_moved for each in rows) == total.bytes_in + total.bytes_out
        assert sum(each.ideal_cycles for each in rows) == pytest.approx(row.ideal_cycles)
        for engine in ("gdma", "bdc"):
            parts = [getattr(each, engine) for each in rows]
            all_of_it = getattr(row, engine)
            assert sum(part.idle_cycles for part in parts) == all_of_it.idle_cycles
            for causes in ("busy_by", "waiting_for"):
                for name, cycles in getattr(all_of_it, causes).items():
                    assert cycles == sum(getattr(part, causes).get(name, 0) for part in parts)


def test_causes_of_each_engine_are_all_of_its_cycles(
    times: ProgramTimes, function: Function
) -> None:
    rows = [whole(times, function), *by_layer(times, function), *by_kernel(times, function)]
    for row in rows:
        for engine in (row.gdma, row.bdc):
            causes = sum(engine.busy_by.values()) + sum(engine.waiting_for.values())
            assert causes + engine.idle_cycles == engine.cycles == row.cycles
            assert engine.busy + engine.waiting + engine.idle == pytest.approx(1)
            assert list(engine.busy_by.values()) == sorted(engine.busy_by.values(), reverse=True)
        assert 0 < row.roofline <= 1
    waited = set[str]().union(*(row.gdma.waiting_for for row in rows))
    assert waited
    assert not any(name.startswith(("load", "store")) for name in waited)
    assert set[str]().union(*(row.bdc.waiting_for for row in rows)) <= {
        *("load", "load_replicated", "store", "gather", "scatter")
    }


def test_json_says_the_same(times: ProgramTimes, function: Function) -> None:
    for row in by_kernel(times, function):
        document = json.loads(json.dumps(row.to_json()))
        for name, engine in (("gdma", row.gdma), ("bdc", row.bdc)):
            busy, waiting = (document[f"{name}_{x}"] for x in ("busy", "waiting"))
            assert busy + waiting == pytest.approx(1)
            assert share(document[f"{name}_busy_with"]) == pytest.approx(busy)
            assert share(document[f"{name}_waiting_for"]) == pytest.approx(waiting)
            ends = [x["share"] for x in document[f"{name}_waiting_for"] if x["cause"] == "end"]
            assert sum(ends) == pytest.approx(engine.idle)


def share(causes: list[dict[str, Any]]) -> float:
    return sum(cause["share"] for cause in causes)


def test_kernels_come_with_the_most_expensive_first(
    times: ProgramTimes, function: Function
) -> None:
    cycles = [row.cycles for row in by_kernel(times, function)]
    assert cycles == sorted(cycles, reverse=True)


def test_layers_come_in_order_of_execution(times: ProgramTimes, function: Function) -> None:
    names = [row.name for row in by_layer(times, function)]
    layers = [f"transformer.encoder.layers.{i}" for i in range(3)]
    assert [name for name in names if name in layers] == layers
    merged = merge_equal(by_layer(times, function))
    assert (f"{layers[0]} .. {layers[-1]}", 3) in [(name, count) for name, count, _ in merged]
    assert sum(count for _, count, _ in merged) == len(names)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("transformer.encoder.layers.11.mlp.dense", "transformer.encoder.layers.11"),
        ("model.layers.0", "model.layers.0"),
        ("lm_head", "lm_head"),
        ("model.norm", "model"),
        ("experts.3.layers.2.w", "experts.3"),
        ("conv2d.weight", "conv2d"),
    ],
)
def test_layer_of(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_rows_that_differ_are_not_merged() -> None:
    nothing = EngineProfile(1, {}, {}, 1)

    def row(name: str, cycles: int) -> ProfileRow:
        return ProfileRow(name, "", 1, cycles, nothing, nothing, 0, 0.0)

    rows = [row("a", 1), row("b", 1), row("c", 2), row("d", 1)]
    assert [(name, n) for name, n, _ in merge_equal(rows)] == [("a .. b", 2), ("c", 1), ("d", 1)]


def test_nothing_takes_no_time() -> None:
    times = ProgramTimes(Program("bm1684x", (), (Function("f", (), (), ()),), ()), CHIP)
    (function,) = times.program.functions
    assert times.function(function).cycles == 0
    assert times.function(function).gdma_busy == times.function(function).bdc_busy == 0
    assert (whole(times, function).roofline, whole(times, function).gdma.busy) == (0, 0)
    assert by_layer(times, function) == []


def test_the_trace_has_every_command_at_its_time(times: ProgramTimes, function: Function) -> None:
    document = json.loads(json.dumps(chrome_trace(times, function)))
    events = document["traceEvents"]
    kernels = [times.program.kernels[launch.kernel] for launch in function.launches]
    counts = {lane: sum(e["tid"] == lane for e in events) for lane in ("kernels", "gdma", "bdc")}
    assert counts == {
        "kernels": len(kernels),
        "gdma": sum(len(kernel.gdma) for kernel in kernels),
        "bdc": sum(len(kernel.bdc) for kernel in kernels),
    }
    for lane in counts:
        spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["tid"] == lane]
        for (_, stop), (start, _) in pairwise(spans):
            assert start >= stop - 1e-6
    end = max(e["ts"] + e["dur"] for e in events)
    assert end == pytest.approx(times.function(function).cycles / CHIP.clock_hz * 1e6)


@pytest.mark.parametrize("quant", ["f32", "f16", "w8a16"])
def test_an_estimate_is_what_the_program_takes(quant: str) -> None:
    module = model_of(TINY_CHATGLM, SEQ).trace()
    row = estimate("tiny", module, SEQ, CompileOptions(quant))
    built = build_program(lower(module, CompileOptions(quant)), "bm1684x")
    times = ProgramTimes(built.program, built.chip).by_name()
    assert (row.prefill, row.decode) == (times["prefill"], times["decode"])
    assert row.memory_bytes == built.plan.used_bytes
    sizes = [b.size_bytes for b in built.program.buffers if b.kind == "weight"]
    assert row.weight_bytes == sum(sizes)
    assert row.fits
    assert row.decode_tokens_per_s == 1 / times["decode"].seconds
    document = row.to_json()
    assert document["decode_cycles_per_token"] == times["decode"].cycles
    assert document["prefill_s"] == times["prefill"].seconds


def test_tw_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shares that are printed of each engine sum up to 100 %."""
    write_checkpoint(tmp_path / "model", TINY_CHATGLM)
    artifact = tmp_path / "model.twm"
    assert run(["compile", str(tmp_path / "model"), "--seq", str(SEQ), "-o", str(artifact)]) == 0
    capsys.readouterr()
    assert run(["profile", str(artifact)]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith(("  GDMA:", "  BDC:"))]
    assert len(lines) == 4
    for line in lines:
        causes = re.sub(r"\([^)]*\)", "", line)
        shares = [float(x) for x in re.findall(r"([\d.]+) %", causes)]
        assert len(shares) == 3
        assert math.isclose(sum(shares), 100, abs_tol=0.2)
    assert "waits for" in text
    assert run(["profile", str(artifact), "--json"]) == 0
    documents = json.loads(capsys.readouterr().out)
    assert [document["function"] for document in documents] == ["prefill", "decode"]
    for document in documents:
        for engine in ("gdma", "bdc"):
            causes = document[f"{engine}_busy_with"] + document[f"{engine}_waiting_for"]
            assert share(causes) == pytest.approx(1)
        assert sum(row["cycles"] for row in document["layers"]) == document["cycles"]
