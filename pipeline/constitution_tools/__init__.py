"""Tools for the people who write constitutions: find faults, import, compare versions."""
