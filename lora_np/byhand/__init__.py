"""Gradients with pencil and paper: python -m lora_np.byhand.

worksheet.py holds the numbers, mistakes.py what goes wrong with them, handout.py the pages, __main__.py the command.
"""
