"""Fine-tuning: runs that train a backbone, or its upper blocks, with their readouts."""
