"""A soft decision tree as the student of a text classifier (Frosst & Hinton 2017, arXiv:1711.09784)."""
