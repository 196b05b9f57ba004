"""From a subscription to a table, for months, exactly once: the collector and its sinks."""
