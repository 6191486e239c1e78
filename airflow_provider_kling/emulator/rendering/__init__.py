"""Pictures that come in, videos that go out."""
