"""Storage of a study, a shared folder or a bucket, and the lock that allows one run at a time."""
