"""Pictures and captions to learn from: emoji scenes that are drawn here, and folders of the user's own."""
