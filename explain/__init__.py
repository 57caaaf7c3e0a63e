"""Where in a face a decision comes from."""
