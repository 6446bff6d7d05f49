"""Helpers that test files share: small programs, models with exact answers, runs, files and page readers."""
