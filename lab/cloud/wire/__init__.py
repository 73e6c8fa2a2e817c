"""Request and response shapes, one module per resource: the contract with the clients."""
