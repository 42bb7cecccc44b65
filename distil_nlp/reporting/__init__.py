"""What `results.json` says, in one voice: names, numbers, tables and sentences for summary, report, card and GLUE."""
