"""Kinds of faults that users met, each over its members: more models, files, fields and moments than were reported."""
