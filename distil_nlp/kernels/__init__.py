"""Triton kernels, each beside what it replaces in torch; nothing here imports Triton before a kernel is asked for."""
