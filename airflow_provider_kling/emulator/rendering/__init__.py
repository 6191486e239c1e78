"""Reference pictures, and the videos rendered from them."""
