"""Who may write what: owners, grants, accounts and rules, as verdicts that are the same on every replica."""
