"""Objects and operations of the cloud: pure state changes on a transaction, without HTTP and SQL."""
