"""Speed and memory of inference against the recipe that people in this field use."""
