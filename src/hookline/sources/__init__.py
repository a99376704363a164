"""Ways in beside the API: each one takes events from somewhere and gives them to the publisher."""
