"""Networks of thousands in one process: the values that run for real, on a simulated clock."""
