patch -s < packing.diff
pytest -k packing
