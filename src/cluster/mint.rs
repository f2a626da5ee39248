//! mint
