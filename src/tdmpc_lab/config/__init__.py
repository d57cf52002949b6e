"""The spec: its schema, its rules, loading it from YAML, comparing two of them."""
