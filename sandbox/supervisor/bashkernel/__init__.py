"""The Bash kernel: a shell that lives from cell to cell, spoken to over descriptors of its own."""
