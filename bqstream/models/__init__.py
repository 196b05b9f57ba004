"""Types for what a document brings: by its selections, and a schema, a sample of rows or the fields' names."""
