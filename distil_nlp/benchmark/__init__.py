"""How long a step takes beside the ways in which others take it, and beside what the machine could do."""
