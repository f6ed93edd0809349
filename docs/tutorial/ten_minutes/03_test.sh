pytest -q test_linear_gelu.py
