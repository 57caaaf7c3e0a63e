"""Predictions to numbers: scores, calibration, statistics, comparison. Imports no torch."""
