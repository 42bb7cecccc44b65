"""A static page on which a student runs in the browser: a folder for any web server, or a Space on the Hub."""

from distil_nlp.demo.build import write_demo
from distil_nlp.demo.space import write_space

__all__ = ["write_demo", "write_space"]
