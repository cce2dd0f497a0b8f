"""The image that containers start from: one layer of packages, built rarely, and one of our code."""
