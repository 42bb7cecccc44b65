"""What a forward pass shows to the losses, captured by hooks."""
