//! relay-service.
