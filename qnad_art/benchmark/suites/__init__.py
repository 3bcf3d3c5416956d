"""Suites: data, networks, defences, attacks, budgets, and threat rungs of a benchmark."""
