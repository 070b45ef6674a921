"""What is trained by Keras: thresholds, made samples, and the trainable form of the graph."""
