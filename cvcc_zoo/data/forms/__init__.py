"""Data sets made of objects and of files of others: arrays, torch Datasets, Hugging Face, torchvision."""
