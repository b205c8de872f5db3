//! What stands behind the roles: [`records`], which last, [`objects`], which are larger, and the [`bus`] between nodes.
//!
//! Each is embedded by default; an engine for a cluster comes in beside it, behind the same type.

pub mod bus;
pub mod objects;
pub mod records;
