"""Writes artifacts: the weights first, streamed to their place; then what needs their scales."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from importlib.metadata import version
from types import TracebackType
from typing import Any

from tilewright.backends.chip import Chip
from tilewright.backends.program import Program
from tilewright.compiler.artifact import archive
from tilewright.compiler.artifact.commands import encode_program
from tilewright.compiler.artifact.manifest import (
    Manifest,
    MemberRecord,
    TensorRecord,
    WeightsRecord,
    encode_manifest,
)
from tilewright.compiler.artifact.validate import program_problems
from tilewright.compiler.output import atomic_output
from tilewright.compiler.weights.container import empty_container
from tilewright.compiler.weights.layout import WeightRequest
from tilewright.compiler.weights.materialize import ProgressCallback, StoredWeights, write_weights
from tilewright.compiler.weights.parts import Ranges
from tilewright.compiler.weights.quantize import CodesRule
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.errors import InternalError


class ArtifactWriter:
    """An artifact under construction. Use it as a context manager:

    ```python
    with ArtifactWriter("model.twm") as writer:
        stored = writer.write_weights(checkpoint, requests)
        ...  # lower the module, knowing stored.scale_elements
        writer.finish(program, module_text, chip)
    ```

    The file appears when the body ends after `finish`; whatever ends it otherwise leaves nothing
    behind.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._stack = ExitStack()
        self._path = path
        self._weights: StoredWeights | None = None
        self._finished = False

    def __enter__(self) -> ArtifactWriter:
        self._output = self._stack.enter_context(atomic_output(self._path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None and not self._finished:
            error = InternalError("the artifact was left unfinished")
            self._stack.__exit__(InternalError, error, None)
            raise error
        self._stack.__exit__(kind, error, traceback)

    def write_weights(
        self,
        source: WeightSource | None,
        requests: Sequence[WeightRequest],
        *,
        codes: CodesRule = "stored-scale",
        ranges: Ranges | None = None,
        progress: ProgressCallback | None = None,
        threads: int | None = None,
    ) -> StoredWeights:
        """Makes and writes the weights (see `weights.materialize.write_weights`), once.

        `source` may be `None` where all requests are computed tables.
        """
        if self._weights is not None:
            raise InternalError("the weights have been written before")
        self._weights = write_weights(
            self._output,
            archive.data_offset(archive.WEIGHTS, 0),
            source if source is not None else empty_container(),
            requests,
            codes=codes,
            ranges=ranges,
            progress=progress,
            threads=threads,
        )
        return self._weights

    def finish(
        self,
        program: Program,
        module_text: str,
        chip: Chip,
        *,
        model: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        pipeline: str = "",
        inputs: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Writes everything else, `model`, `options` and `inputs` (plain data) into the manifest.

        Raises `InternalError` where the program has an address or index that the reader would
        reject.
        """
        weights = self._weights if self._weights is not None else self.write_weights(None, [])
        weight_bytes = {tensor.name: tensor.size_bytes for tensor in weights.tensors}
        for where, why in program_problems(program, chip, weight_bytes):
            raise InternalError("the program is not fit to run", where=where, why=why)
        record, commands = encode_program(program)
        data = {archive.COMMANDS: commands, archive.MODULE: module_text.encode()}
        manifest = Manifest(
            format_version=archive.FORMAT_VERSION,
            tilewright_version=version("tilewright"),
            chip=chip_table(chip),
            model=dict(model or {}),
            options=dict(options or {}),
            pipeline=pipeline,
            inputs=dict(inputs or {}),
            program=record,
            weights=_weights_record(weights),
            members={
                name: MemberRecord(len(content), hashlib.sha256(content).hexdigest())
                for name, content in data.items()
            },
        )
        data[archive.MANIFEST] = encode_manifest(manifest)
        self._write(weights, data)
        self._finished = True
        return manifest

    def _write(self, weights: StoredWeights, data: Mapping[str, bytes]) -> None:
        offset = archive.data_offset(archive.WEIGHTS, 0)
        members = [archive.Member(archive.WEIGHTS, offset, weights.size_bytes, weights.crc32)]
        for name in archive.MEMBERS[1:]:
            offset = archive.data_offset(name, members[-1].end)
            self._output.write_at(offset, data[name])
            crc32 = zlib.crc32(data[name])
            members.append(archive.Member(name, offset, len(data[name]), crc32))
        digest = hashlib.sha256(data[archive.MANIFEST]).hexdigest()
        comment = archive.comment(archive.FORMAT_VERSION, digest)
        for start, content in archive.structure(members, comment):
            self._output.write_at(start, content)


def chip_table(chip: Chip) -> dict[str, Any]:
    """A chip's description as plain data."""
    table = {field.name: getattr(chip, field.name) for field in fields(chip)}
    return {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()
    }


def _weights_record(weights: StoredWeights) -> WeightsRecord:
    return WeightsRecord(
        size_bytes=weights.size_bytes,
        header_bytes=weights.header_bytes,
        header_sha256=weights.header_sha256,
        tensors=tuple(
            TensorRecord(
                name=tensor.name,
                form=tensor.form,
                element=tensor.element.name,
                shape=tensor.shape,
                offset=tensor.offset,
                size_bytes=tensor.size_bytes,
                sha256=tensor.sha256,
                scheme=tensor.scheme,
            )
            for tensor in weights.tensors
        ),
    )
