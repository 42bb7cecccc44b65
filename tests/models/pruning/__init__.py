"""Tests of structured pruning."""
