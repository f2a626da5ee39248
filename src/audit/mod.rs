//! Is all well? What a token says (`inspect`), whether it is good (`verify`), which rights a schedule needs (`rbac`),
//! what is wrong with host, cluster and stores (`doctor`), what will happen (`plan`), what happened and whether that kept the limits (`report`).
//!
//! Everything here decides and shows; nothing changes anything, and no token byte is in what is shown.

pub mod doctor;
pub mod host;
pub mod inspect;
pub mod plan;
pub mod published;
pub mod rbac;
pub mod report;
pub mod verify;
