//! Every sink against its real server: one conformance suite for all, then what each kind has of its own.

pub mod aws;
mod azure;
pub mod bao;
pub mod conformance;
mod federation;
mod gcp;
mod http;
mod manners;
mod parameter;
pub mod secret;
pub mod wire;
