//! The records folder under kills, full disks and meddling: needs no server. What needs root says so loudly.

mod bench;
mod crash;
mod daemon;
mod files;
mod full;
