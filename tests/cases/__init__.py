"""Kinds of faults that users met, each over its members: other models, files, fields and moments than those that were reported."""
