"""Adapters to the engines that execute container specs."""
