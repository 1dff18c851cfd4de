"""Programs compiled ahead of time for TPUs: their memory and their time, without a TPU."""
