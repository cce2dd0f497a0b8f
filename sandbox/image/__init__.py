"""The image that containers start from."""
