python snr.py
