from contextlib import AbstractContextManager
from typing import Literal

def threadpool_info() -> list[dict[str, object]]: ...

class ThreadpoolController:
    def __init__(self) -> None: ...
    def limit(
        self, *, limits: int | None = None, user_api: Literal["blas", "openmp"] | None = None
    ) -> AbstractContextManager[object]: ...
