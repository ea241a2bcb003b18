"""Classification of texts: raw against expanded embeddings."""
