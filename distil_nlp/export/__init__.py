"""Export of a student: one ONNX file, its int8 copy, and what both keep of the student's scores."""
