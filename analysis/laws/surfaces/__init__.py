"""Laws of several variables: surfaces over model size and data, with repeated data."""
