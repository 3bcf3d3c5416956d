"""What a suite says: data, networks, defences, attacks, budgets, and threat rungs."""
