"""Media files to tensors. Knows no corpus and no emotion model."""
