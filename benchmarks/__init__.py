"""Speed, measured side by side with what people use today; see README.md beside this file."""
