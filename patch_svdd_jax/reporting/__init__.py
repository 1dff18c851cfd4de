"""Evaluations and predictions as people read them: files, tables, pictures, pages."""
