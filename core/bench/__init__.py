"""The table of all modes: each row a process of its own, beside what the machine could do at most."""
