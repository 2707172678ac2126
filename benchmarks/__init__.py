"""What is claimed about speed, size and quality, as commands: each prints a table and writes JSON."""
