"""The engines that keep the log and its records: memory and SQLite."""
