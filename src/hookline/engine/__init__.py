"""The verbs, in the order of an event's way: publish, dispatch, record, replay, retain; and manage, read."""
