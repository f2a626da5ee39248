//! Logs: text, JSON lines or journald fields, always through the filter that takes tokens out.

use std::io::stderr;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::journal::Journal;
use crate::token::mask::MaskingWriter;

/// `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Fields of the journal.
    Journald,
}

/// Libraries log bodies, URLs and every refusal; they say nothing here, but for what a timetable has to complain of.
const QUIET: &str = "off,tokio_cron_scheduler=warn";

/// Starts logging to stderr, or to the journal under systemd.
pub fn start(form: Option<Form>, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "info",
        (_, 1) => "debug",
        _ => "trace",
    };
    let filter = || EnvFilter::new(format!("{QUIET},tokenferry={level}"));
    let form = form.unwrap_or_else(|| if std::env::var_os("JOURNAL_STREAM").is_some() { Form::Journald } else { Form::Text });
    let registry = tracing_subscriber::registry();
    let started = match form {
        Form::Journald => match Journal::connect() {
            Ok(journal) => registry.with(filter()).with(journal).try_init(),
            Err(_) => registry.with(filter()).with(text()).try_init(),
        },
        Form::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(|| MaskingWriter::new(stderr()));
            registry.with(filter()).with(layer).try_init()
        }
        Form::Text => registry.with(filter()).with(text()).try_init(),
    };
    if started.is_err() {
        super::print::talk("tokenferry: logging was started twice");
    }
}

fn text<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    use std::io::IsTerminal;
    let coloured = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt::layer().with_ansi(coloured).with_target(false).with_writer(|| MaskingWriter::new(stderr()))
}
