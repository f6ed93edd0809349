"""What Tilewright uses of numba, for type checkers."""

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

types: Any

def njit(**options: Any) -> Callable[[_Function], _Function]: ...
def prange(start: int, stop: int = ..., step: int = ...) -> range: ...
def carray(pointer: Any, shape: Any, dtype: Any = ...) -> Any: ...
