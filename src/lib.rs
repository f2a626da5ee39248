//! tokenferry

#![allow(missing_docs)]
pub mod audit;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod record;
pub mod schedule;
pub mod sink;
pub mod token;
