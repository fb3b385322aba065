"""Pictures of what an exported model merged, on the user's own photograph. Reads bundles, needs no model."""
