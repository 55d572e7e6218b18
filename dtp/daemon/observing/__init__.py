"""What a daemon tells of itself: logs, requests, figures."""
