"""Spaces as things one makes, looks at and proves sound; searching in them is everyone else's business."""
