"""Files that are never half-written, and artifacts that name what is wrong with them."""
