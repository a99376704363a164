"""The deterministic simulation: the real engine on virtual time, in a world of faults, from one seed."""
