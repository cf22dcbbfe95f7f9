"""Drawing of figure data; nothing here computes."""
