"""What only makes the layers faster; results stay the same without it."""
