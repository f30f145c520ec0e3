"""Wire formats: bytes to tensors and back. They know no HTTP, no framework and no model."""
