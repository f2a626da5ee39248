//! Is all well? What a token says (`inspect`) and whether it is good (`verify`).
//!
//! Everything here decides and shows; nothing changes anything, and no token byte is in what is shown.

pub mod inspect;
pub mod published;
pub mod verify;
