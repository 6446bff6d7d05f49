"""Every figure of the library."""
