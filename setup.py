"""Packages of the wheel: those of `distil_nlp`, and the recipes, which live at the top of the repository."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["distil_nlp", "distil_nlp.*"]), "distil_nlp.recipes"])
