pytest --hypothesis-profile=nightly -k noise
