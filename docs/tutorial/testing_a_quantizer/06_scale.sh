patch -s < scale.diff
python report.py | grep fails
