//! backing.
