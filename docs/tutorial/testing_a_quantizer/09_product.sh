patch -s < product.diff
pytest -k product
