"""Pictures, videos and audio of a request, read from wherever they are."""
