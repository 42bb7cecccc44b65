"""A finished model on GLUE: scored as it is (`scoring`), or fine-tuned on each task, several seeds (`protocol`)."""
