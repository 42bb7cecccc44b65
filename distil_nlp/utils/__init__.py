"""Helpers without a home in one package: files, environment, logging, memory."""
