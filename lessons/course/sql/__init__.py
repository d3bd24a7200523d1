"""Questions to SQL, the task of lesson 14: questions about made-up tables, and answers that are run."""
