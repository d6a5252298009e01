"""A PyTorch Lightning model zoo for small images."""
