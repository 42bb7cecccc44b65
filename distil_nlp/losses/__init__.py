"""What a student can match: one file for each thing, with its formulas and its terms.

A formula is a pure function of tensors that returns the **sum** over its rows, never a mean: whoever calls it knows how
many rows the whole optimiser step has (all micro-batches, all processes) and divides by that once. Padding never gets
here, because rows are selected before.
"""
