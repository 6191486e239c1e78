"""From a video's URL to a complete, verified file."""
