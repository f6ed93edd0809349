"""Runs a program on the simulated machine: inputs in, launches executed, outputs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
from typing_extensions import TypeVar

from tilewright.backends.chip import Chip
from tilewright.backends.program import Function, Launch, Port, Program
from tilewright.backends.simulator.machine import Machine, Schedule
from tilewright.compiler.execution import Execution
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import OptionError

_POISON = 0xFF
SCORE = "score"
"""The function that `add-score-function` adds."""

Array = npt.NDArray[Any]


class Session:
    """A program on a machine of its own, or on `machine`, which has no global memory mapped yet.
    States (the KV cache) live as long as the session.

    `weight` gives a weight buffer by name: an array that is mapped, not copied or written to.
    """

    def __init__(
        self,
        program: Program,
        chip: Chip,
        weight: Callable[[str], Array],
        *,
        schedule: Schedule = "early",
        machine: Machine | None = None,
    ) -> None:
        self.program = program
        self.chip = chip
        self.weight = weight
        self._schedule: Schedule = schedule
        self._machine = Machine(chip) if machine is None else machine
        self._memory: dict[int, npt.NDArray[np.uint8]] = {}
        for buffer in program.buffers:
            if buffer.kind == "weight":
                data = weight(buffer.name).reshape(-1).view(np.uint8)
            else:
                data = np.full(buffer.size_bytes, _POISON, np.uint8)
                self._memory[buffer.address] = data
            self._machine.map(
                buffer.address, data, writable=buffer.kind != "weight", name=buffer.name
            )

    def function(self, name: str) -> Function:
        """The entry function `name`; raises `OptionError` where there is none."""
        return entry_function(self.program, name)

    def fill_states(self, byte: int) -> None:
        """Set every byte of all states; 0 makes an empty cache that can be read, 0xFF poison."""
        for buffer in self.program.buffers:
            if buffer.kind == "state":
                self._memory[buffer.address][...] = byte

    def state(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a state, as they are now; raises `OptionError` where there is none."""
        buffers = {b.name: b for b in self.program.buffers if b.kind == "state"}
        if name not in buffers:
            raise OptionError(
                f"the program has no state {name!r}",
                hint=f"it has {', '.join(sorted(buffers)) or 'none'}",
            )
        return self._memory[buffers[name].address]

    def run(
        self,
        name: str,
        inputs: Mapping[str, Array],
        *,
        around: Callable[[int, Launch, Callable[[], None]], None] | None = None,
    ) -> dict[str, Array]:
        """Run one entry function; returns copies of its outputs by name.

        `around` is called for every launch with its index and a function that executes it, so that
        a caller can look at memory before and after. Raises `OptionError` where inputs are missing,
        unknown, of the wrong shape or out of range, `SimulationError` where a command cannot be
        executed.
        """
        function = self.function(name)
        self._set_inputs(function, inputs)
        for index, launch in enumerate(function.launches):
            if around is None:
                self._launch(launch)
            else:
                around(index, launch, lambda launch=launch: self._launch(launch))
        return {port.name: self._port(port).copy() for port in function.outputs}

    def _launch(self, launch: Launch) -> None:
        kernel = self.program.kernels[launch.kernel]
        self._machine.run(kernel, launch.addresses, schedule=self._schedule, name=launch.name)

    def _set_inputs(self, function: Function, inputs: Mapping[str, Array]) -> None:
        for port, stored in zip(
            function.inputs, stored_inputs(function, inputs).values(), strict=True
        ):
            self._port(port)[...] = stored

    def _port(self, port: Port) -> Array:
        return self._memory[port.address].view(port.element.dtype).reshape(port.shape)

    def tensor(
        self, address: int, shape: Iterable[int], element: ElementType, pitch_bytes: int
    ) -> Array:
        """A copy of the tensor at `address`, its rows `pitch_bytes` apart."""
        dims = tuple(shape)
        cols = dims[-1] if dims else 1
        rows = prod(dims[:-1]) if dims else 1
        span = (rows - 1) * pitch_bytes + cols * element.size_bytes
        data = self._machine.read(address, span)
        row_bytes = np.lib.stride_tricks.as_strided(
            data, (rows, cols * element.size_bytes), (pitch_bytes, 1)
        )
        return np.array(row_bytes).view(element.dtype).reshape(dims)


def entry_function(program: Program, name: str) -> Function:
    """The entry function `name` of a program; raises `OptionError` where there is none."""
    functions = {function.name: function for function in program.functions}
    if name not in functions:
        raise OptionError(
            f"the program has no function {name!r}", hint=f"it has {', '.join(sorted(functions))}"
        )
    return functions[name]


def stored_inputs(function: Function, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs of a function in its order and in its storage types.

    Raises `OptionError` where some are missing, unknown, of the wrong shape or out of range.
    """
    names = [port.name for port in function.inputs]
    if sorted(inputs) != sorted(names):
        raise OptionError(
            f"{function.name} takes the inputs {', '.join(names)}",
            why=f"it was given {', '.join(sorted(inputs)) or 'none'}",
        )
    return {port.name: _stored(function, port, inputs[port.name]) for port in function.inputs}


def _stored(function: Function, port: Port, given: Array) -> Array:
    value = np.asarray(given)
    if not _holds_numbers(value, floats=port.element.is_float):
        raise OptionError(
            f"input {port.name} of {function.name} holds {port.element.name}, not {value.dtype}"
        )
    if tuple(value.shape) != port.shape:
        raise OptionError(
            f"input {port.name} of {function.name} has shape {list(port.shape)}, "
            f"not {list(value.shape)}"
        )
    with np.errstate(over="ignore"):
        stored = value.astype(port.element.dtype)
    changed = _not_kept(value, stored)
    if changed is not None:
        raise OptionError(
            f"input {port.name} of {function.name} holds {value.flat[changed]}, which is "
            f"out of the range of {port.element.name}",
            where=f"index {[int(i) for i in np.unravel_index(changed, value.shape)]}",
        )
    return stored


def _holds_numbers(value: Array, *, floats: bool) -> bool:
    """Whether `value` can stand for floats, or for integers. (bf16 is of kind V.)"""
    kind = value.dtype.kind
    is_float = kind == "f" or (kind == "V" and value.dtype.type is not np.void)
    return kind in "biu" or (floats and is_float)


def _not_kept(value: Array, stored: Array) -> int | None:
    """The flat index of the first integer that has wrapped around, or finite value that has become
    infinite."""
    if stored.dtype.kind in "iu":
        changed = stored != value
    else:
        changed = np.isinf(stored) & np.isfinite(value)
    return int(np.argmax(changed)) if changed.any() else None


@dataclass(frozen=True)
class Generation:
    """What a greedy generation gives: the new token ids, and how many decode steps ran."""

    token_ids: tuple[int, ...]
    decode_steps: int


def lowest(element: ElementType) -> float:
    """The lowest finite value of a float type: the mask of what attention may not see."""
    import ml_dtypes

    return float(ml_dtypes.finfo(element.dtype).min)


ExecutionT = TypeVar("ExecutionT", bound=Execution, default=Session)


class LanguageModelSession(Generic[ExecutionT]):
    """Greedy generation with a language model's `prefill` and `decode` (docs/architecture.md), on
    whatever executes it."""

    def __init__(self, session: ExecutionT, vocabulary: int) -> None:
        self.session = session
        self._vocabulary = vocabulary
        self._prefill = session.function("prefill")
        ports = {port.name: port for port in self._prefill.inputs}
        self.seq = ports["input_ids"].shape[0]
        self._lowest = lowest(ports["attention_mask"].element)

    def check_prompt(self, prompt_ids: list[int], max_new_tokens: int) -> None:
        """Raise `OptionError` where the prompt is empty, too long or has unknown ids."""
        if not prompt_ids:
            raise OptionError("the prompt has no tokens", hint="--prompt-ids 64790,64792,790")
        wrong = [i for i in prompt_ids if not 0 <= i < self._vocabulary]
        if wrong:
            raise OptionError(
                f"token id {wrong[0]} is out of range",
                where=f"position {prompt_ids.index(wrong[0])} of the prompt",
                why=f"the vocabulary has {self._vocabulary} tokens: 0 to {self._vocabulary - 1}",
            )
        if max_new_tokens < 1:
            raise OptionError(f"--max-new-tokens is {max_new_tokens}, at least 1 is needed")
        needed = len(prompt_ids) + max_new_tokens - 1
        if needed > self.seq:
            raise OptionError(
                f"the sequence is longer than compiled: {needed} positions of {self.seq}",
                why=f"{len(prompt_ids)} prompt tokens and {max_new_tokens} new ones "
                "(the last one needs no position)",
                hint="compile with a larger --seq, or ask for fewer tokens",
            )

    def prefill_inputs(self, prompt_ids: list[int]) -> dict[str, Array]:
        """Inputs of `prefill` for a prompt: padded on the right, causal."""
        seq = self.seq
        ids = np.zeros(seq, np.int32)
        ids[: len(prompt_ids)] = prompt_ids
        visible = np.tri(seq, dtype=bool)
        return {
            "input_ids": ids,
            "position_ids": np.arange(seq, dtype=np.int32),
            "attention_mask": np.where(visible, 0.0, self._lowest),
            "last_position": np.array([len(prompt_ids) - 1], np.int32),
        }

    def decode_inputs(self, token_id: int, position: int) -> dict[str, Array]:
        """Inputs of `decode` for the token at `position`, which sees all up to its own."""
        visible = np.arange(self.seq)[None, :] <= position
        return {
            "input_ids": np.array([token_id], np.int32),
            "position_ids": np.array([position], np.int32),
            "attention_mask": np.where(visible, 0.0, self._lowest),
        }

    def prefill(self, prompt_ids: list[int]) -> Array:
        """Logits [V] of the last prompt position."""
        return self._first_output("prefill", self.prefill_inputs(prompt_ids))

    def decode(self, token_id: int, position: int) -> Array:
        """Logits [V] after one more token."""
        return self._first_output("decode", self.decode_inputs(token_id, position))

    def score(self, token_ids: Sequence[int]) -> Array:
        """Logits [N, V] after each of N tokens, of one run of `score` (`add-score-function`).

        Raises `OptionError` where the program lacks it, as `check_prompt` for wrong tokens.
        """
        self.check_prompt(list(token_ids), 1)
        self.session.function(SCORE)
        inputs = self.prefill_inputs(list(token_ids))
        del inputs["last_position"]
        return self._output(SCORE, inputs)[: len(token_ids)]

    def _first_output(self, function: str, inputs: Mapping[str, Array]) -> Array:
        return self._output(function, inputs)[0]

    def _output(self, function: str, inputs: Mapping[str, Array]) -> Array:
        return next(iter(self.session.run(function, inputs).values()))

    def generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        *,
        stop_ids: Iterable[int] = (),
        on_token: Callable[[int], None] | None = None,
    ) -> Generation:
        """Greedy decoding until a stop id: the highest logit, of equal ones the lower id."""
        self.check_prompt(prompt_ids, max_new_tokens)
        stops = frozenset(stop_ids)
        logits = self.prefill(prompt_ids)
        token_ids: list[int] = []
        while True:
            token = int(np.argmax(logits[: self._vocabulary]))
            token_ids.append(token)
            if on_token is not None:
                on_token(token)
            if len(token_ids) == max_new_tokens or token in stops:
                return Generation(tuple(token_ids), len(token_ids) - 1)
            logits = self.decode(token, len(prompt_ids) + len(token_ids) - 1)
