"""The commands that this distribution adds to ``qnad``, one module a group of them."""
