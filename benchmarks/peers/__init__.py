"""Quantizers of others, as the suite of `tilewright.testing` takes them: a module a library.

Each has `peers()`, which imports the library and lists its quantizers; without the library it
raises `ImportError`.
"""
