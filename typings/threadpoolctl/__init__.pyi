from contextlib import AbstractContextManager
from typing import Literal

class ThreadpoolController:
    def __init__(self) -> None: ...
    def limit(
        self, *, limits: int | None = None, user_api: Literal["blas", "openmp"] | None = None
    ) -> AbstractContextManager[object]: ...
