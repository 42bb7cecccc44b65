"""More training rows for the teacher to label."""
