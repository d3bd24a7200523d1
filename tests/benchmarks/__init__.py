"""Step times and memory of lora_np against peers. README.md says how to run it and what came out."""
