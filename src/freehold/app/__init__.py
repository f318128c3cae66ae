"""The composition root: reads the settings, starts the processes, puts the domains together."""
