"""The six plugin families and the files they meet in: read this first."""
