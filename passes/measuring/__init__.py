"""What is measured on data and read by passes: statistics, logits, sensitivities, layers side by side."""
