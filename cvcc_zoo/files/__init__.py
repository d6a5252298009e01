"""Files and downloads: written whole or not at all, read as plain data of bounded size."""
