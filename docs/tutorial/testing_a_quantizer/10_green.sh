pytest
python snr.py
