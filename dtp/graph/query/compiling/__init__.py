"""From a query's tree to steps through which rows go: clauses, patterns, expressions."""
