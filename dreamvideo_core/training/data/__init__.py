"""Where training clips come from: the small world, or a user's own videos."""
