"""The benchmark: suites of defences under attack, judged by the field's rules for randomised ones."""
