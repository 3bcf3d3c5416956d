"""``python -m qnad_art``: the command line."""

from qnad_art.cli import main

if __name__ == "__main__":
    main()
