"""A crosstalk strategy for qnad-art, to copy; :mod:`qnad_template.heaviest` is all there is."""
