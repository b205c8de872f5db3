//! signaling-service.
