patch -s < zeros.diff
python report.py | grep fails
