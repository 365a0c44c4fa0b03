"""The penalties that come with the library, one a file."""
