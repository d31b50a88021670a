"""manyface: face-recognition embeddings trained on millions to hundreds of millions of identities."""
