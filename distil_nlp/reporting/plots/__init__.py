"""Plots of the report and the benchmark."""
