"""Evaluation on GLUE: a model is scored as it is (`scoring`), or fine-tuned on each task and seed (`protocol`)."""
