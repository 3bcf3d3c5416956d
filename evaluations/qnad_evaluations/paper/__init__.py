"""The paper's section IV, run again: suites, records of their results, claims, and the page.

Kundu et al., IEEE HOST 2024, doi 10.1109/HOST55342.2024.10545406.
"""
