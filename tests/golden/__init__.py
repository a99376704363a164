"""The exact requests that each event type of each platform becomes, kept as files."""
