"""Signals of a forward pass for the losses, captured by hooks: logits, hidden states, attention and more."""
