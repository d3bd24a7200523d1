"""Beside LoRA itself: several adapters on one base, variants, and memory on paper."""
