//! wipe
