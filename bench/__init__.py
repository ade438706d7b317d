"""Measures how fast the service is, against whom, and where the time goes: `python -m bench`."""
