"""`tw run`: an artifact on the simulated TPU, or on another backend."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from zipfile import ZipFile

import numpy as np

from tilewright.compiler.artifact import Artifact, open_artifact
from tilewright.compiler.cli.output import log, print_json, print_table
from tilewright.compiler.execution import CompiledModel
from tilewright.compiler.execution.registry import find_backend
from tilewright.compiler.npz import read_arrays
from tilewright.compiler.output import write_atomically
from tilewright.compiler.performance import ProgramTimes
from tilewright.compiler.runtime import LanguageModelSession, Session
from tilewright.dialects.errors import OptionError


def session_of(artifact: Artifact) -> Session:
    """A machine with the artifact's program and weights."""
    return Session(artifact.program, artifact.chip, artifact.weight)


def language_model_of(artifact: Artifact, path: Path) -> LanguageModelSession:
    """Greedy generation with an artifact on the simulator; raises `OptionError` if it is no
    language model."""
    vocabulary = vocabulary_of(artifact, path)
    return LanguageModelSession(session_of(artifact), vocabulary)


def vocabulary_of(artifact: Artifact, path: Path) -> int:
    """How many tokens a language model knows; raises `OptionError` if it is no language model."""
    names = {function.name for function in artifact.program.functions}
    vocabulary = artifact.manifest.model.get("vocab_size")
    if not {"prefill", "decode"} <= names or not isinstance(vocabulary, int):
        raise OptionError(
            f"{path} is not a language model",
            why=f"its functions are {', '.join(sorted(names))}",
            hint="tw run MODEL --function NAME --inputs FILE.npz",
        )
    return vocabulary


def parse_ids(text: str) -> list[int]:
    """Token ids from `1,2,3`; raises `OptionError`."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise OptionError(
            f"--prompt-ids {text!r} is not a list of numbers", hint="--prompt-ids 64790,64792,790"
        ) from error


def run_generation(
    model: Path,
    prompt_ids: str,
    max_new_tokens: int,
    *,
    ignore_eos: bool,
    backend: str,
    json: bool,
) -> None:
    """Generate greedily on a backend; print the new ids, and the machine's cycles and token/s."""
    executor = find_backend(backend)
    artifact = open_artifact(model)
    vocabulary = vocabulary_of(artifact, model)
    execution = executor.open(CompiledModel.of_artifact(artifact))
    language_model = LanguageModelSession(execution, vocabulary)
    prompt = parse_ids(prompt_ids)
    stops = () if ignore_eos else tuple(artifact.manifest.model.get("eos_token_ids", ()))
    start = perf_counter()
    result = language_model.generate(
        prompt,
        max_new_tokens,
        stop_ids=stops,
        on_token=lambda token: log(f"token {token} after {perf_counter() - start:.2f} s"),
    )
    times = ProgramTimes(artifact.program, artifact.chip).by_name()
    prefill, decode = times["prefill"], times["decode"]
    document = {
        "model": artifact.manifest.model.get("name"),
        "chip": artifact.chip.name,
        "backend": backend,
        "prompt_ids": prompt,
        "token_ids": list(result.token_ids),
        "prefill_cycles": prefill.cycles,
        "prefill_s": prefill.seconds,
        "decode_cycles_per_token": decode.cycles,
        "decode_tokens_per_s": 1 / decode.seconds,
        "simulation_s": perf_counter() - start,
    }
    if json:
        print_json(document)
        return
    print(f"token ids: {','.join(str(token) for token in result.token_ids)}")
    print(
        f"prefill:   {prefill.cycles:,} cycles, {prefill.seconds * 1e3:.3f} ms "
        f"on {artifact.chip.name}"
    )
    print(
        f"decode:    {decode.cycles:,} cycles a token, {1 / decode.seconds:.2f} token/s "
        f"at {artifact.chip.clock_hz / 1e9:g} GHz"
    )


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file. `np.savez` takes names as keywords, some of which are its own."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def run_function(
    model: Path,
    function: str,
    inputs: Path | None,
    output: Path | None,
    *,
    backend: str,
    json: bool,
) -> None:
    """Run one function on the arrays of an .npz file, on a backend."""
    executor = find_backend(backend)
    artifact = open_artifact(model)
    execution = executor.open(CompiledModel.of_artifact(artifact))
    ports = execution.function(function).inputs
    arrays: dict[str, np.ndarray] = {}
    if inputs is not None:
        arrays = read_arrays(inputs)
    elif ports:
        raise OptionError(
            f"--function {function} needs --inputs",
            why=", ".join(f"{p.name} {p.element.name}{list(p.shape)}" for p in ports),
        )
    outputs = execution.run(function, arrays)
    floats = {
        name: value.astype(np.float32) if value.dtype.kind not in "if" else value
        for name, value in outputs.items()
    }
    if output is not None:
        write_atomically(output, npz_bytes(floats))
    time = ProgramTimes(artifact.program, artifact.chip).by_name()[function]
    if json:
        print_json(
            {
                "function": function,
                "backend": backend,
                "cycles": time.cycles,
                "seconds": time.seconds,
                "outputs": {
                    name: {"shape": list(value.shape), "dtype": str(outputs[name].dtype)}
                    for name, value in floats.items()
                },
            }
        )
        return
    print(f"{function}: {time.cycles:,} cycles, {time.seconds * 1e3:.3f} ms")
    print_table(
        ("output", "shape", "type", "min", "max"),
        [
            (name, list(v.shape), outputs[name].dtype, float(v.min()), float(v.max()))
            for name, v in floats.items()
        ],
    )
