"""Fine-tuning on data of one's own: rows of it, conversations, and the training behind `python -m lora_np tune`."""
