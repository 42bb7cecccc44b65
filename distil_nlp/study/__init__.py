"""Studies: several objectives on the same recipe, compared in one table."""
