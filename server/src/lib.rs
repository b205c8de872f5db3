//! The server as a library, for its tests.
