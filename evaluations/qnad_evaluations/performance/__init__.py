"""``qnad bench``: what this package costs, as ratios to what it replaces, side by side.

A *measurement* (:mod:`qnad_evaluations.performance.measurements`) is a named function that gives
:class:`~qnad_evaluations.performance.results.Result`; results go into a JSON file, from which the
tables are written (:mod:`qnad_evaluations.performance.tables`) and against which later runs are
checked (:mod:`qnad_evaluations.performance.check`).
"""
