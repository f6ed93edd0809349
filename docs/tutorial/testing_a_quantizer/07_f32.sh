patch -s < f32.diff
python report.py | grep fails
