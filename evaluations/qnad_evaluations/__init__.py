"""The evaluation of the QNAD paper, run again, and measurements of the speed of ``qnad_art``.

Installing this distribution adds the commands ``qnad paper``, ``qnad results`` and ``qnad bench``.
"""

__version__ = "0.1.0"
