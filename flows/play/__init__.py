"""`rcg play`: a page in the browser on top of a bundle. Only page.py and server.py know Gradio."""
