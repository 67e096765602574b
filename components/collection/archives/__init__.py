"""Pictures in archives, read by range: tar (WebDataset), zip, Parquet (Hugging Face)."""
