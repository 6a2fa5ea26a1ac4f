"""The Hugging Face Hub: repositories of models to load from, the folder of one, and uploading it."""
