"""Studies beside the suites: scripts, each run with ``python -m qnad_evaluations.studies.NAME``."""
