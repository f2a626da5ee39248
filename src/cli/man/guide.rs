//! tokenferry(8): operations.

use super::{DATE, Written};

pub(super) fn page() -> Written {
    let text = include_str!("tokenferry.8").replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@DATE@", DATE);
    Written { name: "tokenferry.8".into(), text }
}
