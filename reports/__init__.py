"""Numbers to pictures, tables and pages. Knows no model and imports no torch."""
