"""The table of a recording's windows: rows, files, summary."""
