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

/// Libraries that log bodies, URLs or every refusal say nothing below the level given here.
const QUIET: &str = "kube_client=off,kube=off,vaultrs=off,rustify=off,reqwest=off,hyper=off,hyper_util=off,rustls=off,h2=off,tower=off,\
    aws_config=off,aws_sdk_secretsmanager=off,aws_smithy_runtime=off,aws_smithy_runtime_api=off,aws_smithy_http_client=off,aws_runtime=off,\
    aws_credential_types=off,aws_sigv4=off,google_cloud_auth=off,google_cloud_gax=off,google_cloud_gax_internal=off,google_cloud_secretmanager_v1=off,\
    tokio_cron_scheduler=warn";

/// Starts logging to stderr, or to the journal under systemd.
pub fn start(form: Option<Form>, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "info",
        (_, 1) => "debug",
        _ => "trace",
    };
    let filter = || EnvFilter::new(format!("{level},{QUIET}"));
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
