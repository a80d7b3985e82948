"""The hospital's side: agent, policy, data, training under differential privacy, budget, witness."""
