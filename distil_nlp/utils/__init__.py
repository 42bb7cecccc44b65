"""Helpers that several packages use: files, environment, logging, failures, memory."""
