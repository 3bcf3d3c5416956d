"""Checking an attack's settings draws nothing from torch's global generator."""

import torch

from qnad_art.benchmark.attacks import AttackSpec, stand_in
from qnad_art.benchmark.threats.victim import seeded


def test_the_first_check_of_settings_shifts_no_draws():
    stand_in.cache_clear()
    with seeded(3):
        expected = torch.rand(3)
    with seeded(3):
        AttackSpec.parse("pgd")
        assert torch.equal(torch.rand(3), expected)
