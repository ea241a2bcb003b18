"""Calibration of trained classifiers, whatever they read; measured by every experiment that classifies."""
