"""What a person sees in a terminal: verdicts, tables, progress, the settings of a method."""
