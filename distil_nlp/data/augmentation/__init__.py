"""Augmentation of training rows; the teacher labels the augmented rows."""
