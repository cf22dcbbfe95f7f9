"""The Ray backend; the only package that imports Ray."""
