//! Is all well? What a token says (`inspect`), whether it is good (`verify`), which rights a schedule needs (`rbac`),
//! what will happen (`plan`).
//!
//! Everything here decides and shows; nothing changes anything, and no token byte is in what is shown.

pub mod inspect;
pub mod plan;
pub mod published;
pub mod rbac;
pub mod verify;
