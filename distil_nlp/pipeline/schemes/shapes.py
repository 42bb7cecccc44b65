"""Shapes of students in words."""

from __future__ import annotations

from distil_nlp.recipe.sections import ShapeSection


def describe_shape(shape: ShapeSection) -> str:
    """Return a shape in words, such as `9 layers`."""
    layers = shape.num_layers or (len(shape.layers) if isinstance(shape.layers, list) else None)
    fields = [f"{layers} layer{'s' * (layers > 1)}" if layers else "half the layers"]
    return ", ".join([*fields, *(f"{name} {value}" for name, value in shape.config.items())])
