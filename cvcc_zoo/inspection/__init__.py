"""What a network is made of and what it costs: layers, fields, memory, speed, the signal at its start."""
