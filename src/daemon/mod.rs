//! Who keeps it going? The event loop with all mutable state, the pure steps that it takes, the story of one
//! rotation, and what joins it to the host: schedule file, control socket, cron, systemd.

pub mod alerts;
pub mod aside;
pub mod ask;
pub mod binding;
pub mod clock;
pub mod control;
pub mod course;
pub mod cron;
pub mod crowd;
pub mod errands;
pub mod failback;
pub mod files;
pub mod fleet;
pub mod listen;
pub mod metrics;
pub mod monitor;
pub mod moves;
pub mod named;
pub mod own;
pub mod pace;
pub mod parts;
pub mod places;
pub mod proof;
pub mod published;
pub mod read;
pub mod rehearsal;
pub mod revocation;
pub mod rotation;
pub mod scene;
pub mod start;
pub mod status;
pub mod step;
pub mod systemd;
pub mod timetable;
pub mod touched;
pub mod walls;
pub mod watch;
pub mod wheel;
pub mod whole;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::record::Actor;
use crate::record::append::{self, Health, OpenError, Writer};
use crate::record::fold::State;
use crate::schedule::{Problem, Sources};
use ask::{Ask, Selector};
use course::Told;
use places::Places;
use read::Accepted;
use scene::Scene;
use status::Refused;
use walls::Walls;
use wheel::Wheel;

/// What a run was asked for.
pub struct Options {
    /// The schedule file.
    pub schedule: PathBuf,
    /// The records folder.
    pub records: PathBuf,
    /// What confines this process.
    pub walls: Arc<Walls>,
    /// For `once`: what to do before it ends.
    pub once: Option<Once>,
}

/// `once`: rotate what is due, then end.
pub struct Once {
    /// Which targets.
    pub selector: Selector,
    /// Due or not.
    pub force: bool,
    /// Who withdraws them, where they are not to be rotated but taken back.
    pub withdraw: Option<Actor>,
    /// Counts what has ended, for whoever shows it.
    pub told: Arc<AtomicUsize>,
}

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The schedule is refused, and none was accepted before: exit code 2.
    #[error("the schedule is refused")]
    Refused(Vec<Problem>),
    /// Another process holds the records folder: exit code 2.
    #[error(transparent)]
    Records(#[from] OpenError),
    /// The host lacks something.
    #[error("{0}")]
    Host(String),
}

/// What a daemon begins with: a schedule, and walls around what it may write.
pub struct Beginning {
    schedule: PathBuf,
    places: Places,
    accepted: Accepted,
    refused: Option<Refused>,
    /// What confines this process.
    pub walls: Arc<Walls>,
}

/// Reads the schedule and raises the walls; to be called while this process has one thread.
///
/// # Errors
/// [`RunError::Refused`].
pub fn begin(schedule: PathBuf, places: Places) -> Result<Beginning, RunError> {
    let (accepted, refused) = accept(&schedule, &places)?;
    let walls = Arc::new(Walls::raise(&accepted.plan, &places));
    walls.tell();
    Ok(Beginning { schedule, places, accepted, refused, walls })
}

/// Runs the daemon until it is told to stop. `examine` looks at it from within, for `doctor`.
///
/// # Errors
/// [`RunError`]; once it runs, nothing ends it but a signal.
pub async fn run(beginning: Beginning, examine: control::Examine) -> Result<(), RunError> {
    let Beginning { schedule, places, accepted, refused, walls } = beginning;
    let socket = places.by(&accepted.plan).socket;
    let Opened { records, scene, writer, state, sources } = open(accepted, &places).await?;
    let listener = control::bind(&socket).map_err(RunError::Host)?;
    let metrics = match scene.plan.metrics {
        Some(address) => Some(listen::bind(address).await.map_err(RunError::Host)?),
        None => None,
    };
    let (asks, asked) = mpsc::channel(64);
    let reload_on_change = scene.plan.reload_on_change;
    let options = Options { schedule: schedule.clone(), records, walls, once: None };
    let mut wheel = Wheel::new(options, scene, writer.clone(), state, refused);
    wheel.leave_beside(sources);
    let server = tokio::spawn(control::serve(listener, asks.clone(), examine));
    let metrics = metrics.map(|listener| tokio::spawn(listen::serve(listener, asks.clone())));
    let signals = tokio::spawn(heed(signals()?, asks.clone()));
    let watcher = reload_on_change.then(|| tokio::spawn(watch::watch(schedule, asks.clone())));
    wheel
        .run(asked, |text| {
            tracing::info!("ready: {text}");
            systemd::ready(text);
        })
        .await;
    systemd::stopping();
    server.abort();
    signals.abort();
    for task in [watcher, metrics].into_iter().flatten() {
        task.abort();
    }
    // The socket of a daemon that is gone would make callers wait for an answer.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(%error, "the control socket was gone already");
    }
    ended(writer).await;
    Ok(())
}

/// Lets the records go, and says loudly what they do not hold.
async fn ended(writer: Writer) -> Health {
    let last = writer.clone();
    writer.close().await;
    let health = last.health();
    if let Some(error) = &health.error {
        tracing::error!(error, lines = health.waiting + health.lost, "records could not be written; what happened is not recorded");
    }
    health
}

/// Rotates what is due (or all that is meant, when forced) and ends. Says too how recording went: what could not be
/// written by now is not kept.
///
/// # Errors
/// [`RunError`].
pub async fn once(schedule: PathBuf, places: Places, once: Once) -> Result<(Vec<Told>, Health), RunError> {
    let accepted = read::read(&schedule).map_err(RunError::Refused)?;
    let Opened { records, scene, writer, state, sources } = open(accepted, &places).await?;
    let (asks, asked) = mpsc::channel(4);
    // It takes no reload, which is what walls are asked about.
    let options = Options { schedule, records, walls: Arc::new(Walls::Unasked), once: Some(once) };
    let mut wheel = Wheel::new(options, scene, writer.clone(), state, None);
    wheel.leave_beside(sources);
    let signals = tokio::spawn(heed(signals()?, asks));
    wheel.run(asked, |_| ()).await;
    signals.abort();
    let outcomes = std::mem::take(&mut wheel.outcomes);
    drop(wheel);
    Ok((outcomes, ended(writer).await))
}

/// The schedule, or the text that was last accepted where it is refused.
fn accept(schedule: &std::path::Path, places: &Places) -> Result<(Accepted, Option<Refused>), RunError> {
    match read::read(schedule) {
        Ok(accepted) => Ok((accepted, None)),
        Err(problems) => {
            let records = read::path_in_broken(schedule, "records", "directory").unwrap_or_else(|| places.records.clone());
            let Some(kept) = read::kept(&records, schedule) else { return Err(RunError::Refused(problems)) };
            for problem in &problems {
                tracing::error!("{problem}");
            }
            tracing::error!("the schedule is refused; the one that was accepted last is served");
            Ok((kept, Some(Refused { since: Timestamp::now(), problems })))
        }
    }
}

/// An accepted schedule with its records, open.
struct Opened {
    records: PathBuf,
    scene: Arc<Scene>,
    writer: Writer,
    state: State,
    sources: Sources,
}

async fn open(accepted: Accepted, places: &Places) -> Result<Opened, RunError> {
    let Accepted { plan, sources } = accepted;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let records = places.by(&plan).records;
    let plan = own::join(plan, &records);
    let options = append::Options { keep: plan.records.keep, max_size: plan.records.max_size };
    let (folder, key) = (records.clone(), plan.records.signing_key.clone());
    let opened = tokio::task::spawn_blocking(move || append::open_signed(&folder, options, key)).await;
    let opened = opened.map_err(|_| RunError::Host("opening the records was cut short".into()))??;
    for note in &opened.notes {
        tracing::warn!("records: {note}");
    }
    own::prepare(&plan, &records);
    let scene = Arc::new(Scene::new(Arc::new(plan), &records, None));
    for cluster in scene.clusters.iter().filter(|c| c.is_embedded()) {
        tracing::warn!(cluster = cluster.name(), "an embedded cluster signs with a key on this host: for trials, never for production");
    }
    Ok(Opened { records, scene, writer: opened.writer, state: opened.state, sources })
}

fn signals() -> Result<[Signal; 3], RunError> {
    let catch = |kind| signal(kind).map_err(|e| RunError::Host(format!("signals cannot be caught: {e}")));
    Ok([catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?])
}

/// SIGTERM and SIGINT end the run in good order, SIGHUP reloads.
async fn heed(signals: [Signal; 3], asks: mpsc::Sender<Ask>) {
    let [mut terminate, mut interrupt, mut hangup] = signals;
    loop {
        let ask = tokio::select! {
            _ = terminate.recv() => Ask::Stop,
            _ = interrupt.recv() => Ask::Stop,
            _ = hangup.recv() => Ask::Reload(None, oneshot::channel().0),
        };
        if asks.send(ask).await.is_err() {
            return;
        }
    }
}
