"""What measures mmfish: speed, memory, gradients, necks, MMDetection's zoo, the paper's tables."""
