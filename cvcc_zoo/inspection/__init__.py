"""Analysis of networks: layers, receptive fields, memory, speed, and the signal at initialisation."""
