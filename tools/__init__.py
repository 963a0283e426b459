"""What makes and checks files of the repository; nothing of it is installed."""
