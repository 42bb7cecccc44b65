"""How good a model is, how like its teacher, and what it costs."""
