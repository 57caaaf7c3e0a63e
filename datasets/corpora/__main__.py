"""`python -m datasets.corpora` lists the corpora that can be read, as docs/corpora.md has them."""

import sys

from datasets.corpora import format_corpora

sys.stdout.write(f"{format_corpora()}\n")
