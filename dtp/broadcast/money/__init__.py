"""The money of shows: their state on the chain, whether they are on air, and the slots that are posted to be
paid."""
