"""Types for what a document brings: from its selections, with what a schema, a sample of rows or a table says of them."""
