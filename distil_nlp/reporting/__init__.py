"""Names, numbers, tables, sentences and plots from `results.json`, for summary, report, model card and GLUE."""
