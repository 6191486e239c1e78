"""Files that tasks have recorded, and what stands in where they cannot be reached."""
