"""What names say: emotions and their spellings, clips, RAVDESS's files. Imports nothing of ours."""
