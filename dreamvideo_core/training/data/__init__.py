"""Sources of training clips: the small world, or a user's own videos."""
