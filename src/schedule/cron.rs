//! Unix cron with a time zone.

use jiff::tz::TimeZone;

/// One cron expression in one time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct CronRule {
    /// As written.
    pub text: String,
    /// In which zone its fields count.
    pub zone: TimeZone,
}
