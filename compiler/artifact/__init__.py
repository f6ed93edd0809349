"""The `.twm` artifact: a compiled model in one file that can be mapped, inspected and checked."""

from tilewright.compiler.artifact.manifest import Manifest
from tilewright.compiler.artifact.reader import Artifact, open_artifact
from tilewright.compiler.artifact.writer import ArtifactWriter

__all__ = ["Artifact", "ArtifactWriter", "Manifest", "open_artifact"]
