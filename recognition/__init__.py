"""A loaded recogniser at work on recordings."""
