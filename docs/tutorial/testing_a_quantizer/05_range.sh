patch -s < range.diff
python report.py | grep fails
