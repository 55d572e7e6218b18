"""Taking back what this program did."""
