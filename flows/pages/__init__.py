"""What a page of a model or an artifact shows, gathered for the templates beside it. components/pages draws."""
