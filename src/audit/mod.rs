//! Is all well? What a token says (`inspect`), whether it is good (`verify`), which rights a schedule needs (`rbac`).
//!
//! Everything here decides and shows; nothing changes anything, and no token byte is in what is shown.

pub mod inspect;
pub mod published;
pub mod rbac;
pub mod verify;
