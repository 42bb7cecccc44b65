"""Quality of a model, its fidelity to the teacher, and its costs."""
