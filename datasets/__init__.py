"""Corpora to records, records to samples."""
