"""The commands, a module for each group: words to calls, and no logic."""
