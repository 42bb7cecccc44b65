"""Benchmarks of step time: beside other implementations, and relative to the hardware's peak rate."""
