"""The code behind `python -m lessons`: scripts, pages, figures and the bases that lessons start from."""
