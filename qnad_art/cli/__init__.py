"""The command ``qnad``; one module a command, heavy imports inside the commands."""
